// pixel.js - one value, as cnn_explain prints it, drawn: window, kernel, products, sum, bias, activation.
"use strict";

const plain = number => String(number).replace("-", "−");

// What cnn_explain printed, as numbers. Padded values stand in brackets there, the largest has a star.
function parse(text) {
    const lines = text.split("\n"), kind = /\((\w+) "/.exec(lines[0])[1], found = { kind, text, channels: [] };
    const numbers = line => (line.match(/-?\d+\.\d+|-?\d+/g) ?? []).map(Number);
    for (const line of lines.slice(1)) {
        let match;
        if ((match = /^  c = (\d+)/.exec(line))) found.channels.push({ c: +match[1], rows: [], sum: 0 });
        else if ((match = /sum of these products: (\S+)/.exec(line))) found.channels[found.channels.length - 1].sum = match[1];
        else if ((match = /sum (\S+) ([+-]) bias (\S+) = (\S+)/.exec(line)))
            Object.assign(found, { sum: match[1], bias: (match[2] === "-" ? "-" : "") + match[3], result: match[4] });
        else if ((match = /x = (\S+), y = (\S+)/.exec(line))) Object.assign(found, { x: match[1], result: match[2] });
        else if ((match = /largest \(\*\): (\S+)/.exec(line))) found.result = match[1];
        else if ((match = /i = (\d+) +(\S+) \* *(\S+) = +(\S+)/.exec(line)))
            (found.terms ??= []).push({ i: +match[1], w: match[2], x: match[3], product: match[4] });
        else if ((match = /the other (\d+) together: +(\S+)/.exec(line))) found.rest = { count: +match[1], sum: match[2] };
        else if (kind === "conv2d" && line.includes("*"))
            found.channels[found.channels.length - 1].rows.push(Array.from(line.matchAll(/(\[?) *(-?[\d.]+)(\]?) *\* *(-?[\d.]+)/g),
                part => ({ z: part[2], u: part[4], padded: part[1] === "[" })));
        else if (kind === "max_pool2d" && line.trim())
            (found.window ??= []).push(Array.from(line.matchAll(/(-?[\d.]+)(\*?)/g), part => ({ z: part[1], largest: part[2] === "*" })));
    }
    if (kind === "conv2d") {
        const [, , , top, left] = [0, 0, 0, ...(/z\(c, (-?\d+) \+ y.*?, (-?\d+) \+ x/.exec(lines[0]).slice(1).map(Number))];
        Object.assign(found, { top, left });
    } else if (kind === "max_pool2d") {
        const [top, bottom, left, right] = numbers(lines[0].split("rows")[1]);
        Object.assign(found, { top, bottom, left, right });
    } else if (kind === "flatten") {
        const match = /x\((\d+), (\d+), (\d+)\) = (\S+)/.exec(lines[0]);
        Object.assign(found, { from: match.slice(1, 4).map(Number), result: match[4] });
    }
    return found;
}

// The chosen value; a convolution or linear layer is followed by its activation, and an activation shows what it is of.
function explainPixel() {
    const { layer, channel, row, column } = chosen, parts = [], marks = [];
    const relu = layers[layer].kind === "relu" ? layer : layers[layer + 1]?.kind === "relu" ? layer + 1 : 0;
    const first = layers[layer].kind === "relu" ? layer - 1 : layer;
    parts.push(parse(explained(LESSON, layers[first].name, channel, row, column)));
    if (relu) parts.push(parse(explained(LESSON, layers[relu].name, channel, row, column)));
    marks.push({ layer, channel, top: row, left: column, bottom: row, right: column, strong: true });
    const [part] = parts, [, height, width] = layers[first - 1].shape;
    const clip = (value, count) => Math.min(Math.max(value, 0), count - 1);
    if (part.kind === "conv2d") {
        const size = part.channels[0].rows.length;
        marks.push({
            layer: first - 1, channel: -1, top: clip(part.top, height), left: clip(part.left, width),
            bottom: clip(part.top + size - 1, height), right: clip(part.left + size - 1, width)
        });
    } else if (part.kind === "max_pool2d")
        marks.push({ layer: first - 1, channel, top: part.top, left: part.left, bottom: part.bottom, right: part.right });
    else if (part.kind === "flatten") {
        const [k, j, i] = part.from;
        marks.push({ layer: first - 1, channel: k, top: j, left: i, bottom: j, right: i });
    } else if (part.kind === "linear")
        for (const term of part.terms) marks.push({ layer: first - 1, channel: term.i, top: 0, left: 0, bottom: 0, right: 0 });
    return { parts, marks };
}

// A small table of numbers on their colours
function grid(rows, value, largest, caption, mark = () => "") {
    const cells = rows.map(row => "<tr>" + row.map(cell => {
        const number = value(cell), colour = colourOf(number, largest);
        const style = cell.padded && value !== kernelOf ? "" : ` style="background:${css(colour)};color:${inkOn(colour)}"`;
        return `<td class="${mark(cell)}"${style}>${plain(Number(number).toFixed(4))}</td>`;
    }).join("") + "</tr>").join("");
    return `<table class="grid"><caption>${caption}</caption>${cells}</table>`;
}

const windowOf = cell => cell.z, kernelOf = cell => cell.u, productOf = cell => cell.z * cell.u;

// z, u and their products, of each channel
function showChannels(part) {
    const cells = part.channels.flatMap(channel => channel.rows.flat());
    const most = value => largestOf(cells.map(value).map(Number)), padded = cell => cell.padded ? "padded" : "";
    const z = most(windowOf), u = most(kernelOf), p = most(productOf), several = part.channels.length > 1;
    return part.channels.map(channel => `<div class="channel">
        ${grid(channel.rows, windowOf, z, `${word("window")} z${several ? `, c = ${channel.c}` : ""}`, padded)}<span class="sign">×</span>
        ${grid(channel.rows, kernelOf, u, `${word("kernel")} u`)}<span class="sign">=</span>
        ${grid(channel.rows, productOf, p, word("products"), padded)}<span class="sign">Σ</span>
        <span class="sum"><small>${word("sum")}</small><output>${plain(channel.sum)}</output></span></div>`).join("");
}

const equations = {
    conv2d: `f(k, j, i) = b(k) + <span class="big">Σ</span><sub>c,y,x</sub> z(c, j + y, i + x) u(k, c, y, x) <em>(6.2)</em>`,
    relu: `τ(f) = max(0, f) <em>(6.3)</em>`,
    linear: `y(o) = b(o) + <span class="big">Σ</span><sub>i</sub> W(o, i) x(i)`,
    max_pool2d: `y(k, j, i) = max<sub>y,x</sub> x(k, 2j + y, 2i + x)`
};

const term = (name, value, extra = "") => `<span class="term ${extra}"><small>${name}</small><output>${plain(value)}</output></span>`;

// The equation, and the numbers in it
function showPart(part) {
    if (part.kind === "conv2d") return [equations.conv2d, showChannels(part)];
    if (part.kind === "flatten") return [`y(${chosen.channel}) = x(${part.from.join(", ")})`, `<div class="terms">${term("x", part.result, "result")}</div>`];
    if (part.kind === "max_pool2d")
        return [equations.max_pool2d, `<div class="channel">
            ${grid(part.window, windowOf, largestOf(part.window.flat().map(windowOf).map(Number)), word("window"), cell => cell.largest ? "largest" : "")}
            <span class="sign">→</span>${term(word("largest"), part.result, "result")}</div>`];
    return [equations.linear, `<table class="list"><caption>${word("largestProducts")}</caption>
        <tr><th>i</th><th>W(o, i)</th><th>x(i)</th><th>${word("product")}</th></tr>` +
        part.terms.map(t => `<tr><td>${t.i}</td><td>${plain(t.w)}</td><td>${plain(t.x)}</td><td>${plain(t.product)}</td></tr>`).join("") +
        (part.rest ? `<tr><td colspan="3">${word("others").replace("#", part.rest.count)}</td><td>${plain(part.rest.sum)}</td></tr>` : "") + "</table>"];
}

function showPixel({ parts }) {
    const { layer, channel, row, column } = chosen, flat = layers[layer].shape[1] * layers[layer].shape[2] === 1;
    const [part, relu] = parts, [equation, body] = showPart(part);
    const sums = part.bias === undefined ? "" : `<div class="terms">${term(word("sum"), part.sum)}<span class="sign">+</span>
        ${term(word("bias"), part.bias)}<span class="sign">=</span>${term(part.kind === "linear" ? "y" : "f", part.result, relu ? "" : "result")}
        ${relu ? `<span class="sign">→</span><span class="equation">${equations.relu}</span><span class="sign">=</span>${term("τ(f)", relu.result, "result")}` : ""}</div>`;
    document.getElementById("pixel-title").textContent = `${layers[layer].name}, ${flat
        ? word("value").replace("#", channel) : word("place").replace("#k", channel).replace("#j", row).replace("#i", column)}`;
    document.getElementById("pixel").innerHTML = `<p class="equation">${equation}</p>${sums}${body}`;
    document.getElementById("pixel-text").textContent = parts.map(one => one.text).join("");
}
