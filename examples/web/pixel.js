// pixel.js - one value, as cnn_explain prints it, drawn: window, kernel, products, sum, bias, activation.
"use strict";

const plain = number => String(number).replace("-", "−");

// What cnn_explain printed, as numbers. Padded values stand in brackets there, the largest of a window has a star.
function parse(text) {
    const [head, ...lines] = text.split("\n"), kind = /\((\w+) "/.exec(head)[1];
    const found = { kind, text, channels: [], window: [], terms: [] };
    for (const line of lines) {
        const channel = found.channels[found.channels.length - 1], is = pattern => match = pattern.exec(line);
        let match;
        if (is(/^  c = (\d+)/)) found.channels.push({ c: +match[1], rows: [] });
        else if (is(/sum of these products: (\S+)/)) channel.sum = match[1];
        else if (is(/sum (\S+) ([+-]) bias (\S+) = (\S+)/))
            Object.assign(found, { sum: match[1], bias: match[2].replace("+", "") + match[3], result: match[4] });
        else if (is(/x = (\S+), y = (\S+)/)) Object.assign(found, { x: match[1], result: match[2] });
        else if (is(/largest \(\*\): (\S+)/)) found.result = match[1];
        else if (is(/i = (\d+) +(\S+) \* *(\S+) = +(\S+)/))
            found.terms.push({ i: +match[1], w: match[2], x: match[3], product: match[4] });
        else if (is(/the other (\d+) together: +(\S+)/)) found.rest = { count: +match[1], sum: match[2] };
        else if (kind === "conv2d" && line.includes("*"))
            channel.rows.push(Array.from(line.matchAll(/(\[?) *(-?[\d.]+)\]? *\* *(-?[\d.]+)/g),
                ([, bracket, z, u]) => ({ z, u, padded: bracket === "[" })));
        else if (kind === "max_pool2d" && line.trim())
            found.window.push(Array.from(line.matchAll(/(-?[\d.]+)(\*?)/g),
                ([, z, star]) => ({ z, largest: star === "*" })));
    }
    const whole = text => text.map(Number);
    if (kind === "conv2d")
        [found.top, found.left] = whole(/z\(c, (-?\d+) \+ y.*?, (-?\d+) \+ x/.exec(head).slice(1));
    else if (kind === "max_pool2d")
        [found.top, found.bottom, found.left, found.right] = whole(head.split("rows")[1].match(/\d+/g));
    else if (kind === "flatten") {
        const [, k, j, i, result] = /x\((\d+), (\d+), (\d+)\) = (\S+)/.exec(head);
        Object.assign(found, { from: whole([k, j, i]), result });
    }
    return found;
}

// The chosen value; a convolution or linear layer is followed by its activation, and an activation shows what it is of.
function explainPixel() {
    const { layer, channel, row, column } = chosen;
    const first = layers[layer].kind === "relu" ? layer - 1 : layer;
    const shown = layers[first + 1]?.kind === "relu" ? [first, first + 1] : [first];
    const parts = shown.map(i => parse(explained(LESSON, layers[i].name, channel, row, column))), [part] = parts;
    const marks = [{ layer, channel, top: row, left: column, bottom: row, right: column, strong: true }];
    const [, height, width] = layers[first - 1].shape;
    const clip = (value, count) => Math.min(Math.max(value, 0), count - 1);
    if (part.kind === "conv2d") {
        const size = part.channels[0].rows.length;
        marks.push({
            layer: first - 1, channel: -1, top: clip(part.top, height), left: clip(part.left, width),
            bottom: clip(part.top + size - 1, height), right: clip(part.left + size - 1, width)
        });
    } else if (part.kind === "max_pool2d")
        marks.push({ ...part, layer: first - 1, channel });
    else if (part.kind === "flatten") {
        const [k, j, i] = part.from;
        marks.push({ layer: first - 1, channel: k, top: j, left: i, bottom: j, right: i });
    } else if (part.kind === "linear")
        for (const { i } of part.terms)
            marks.push({ layer: first - 1, channel: i, top: 0, left: 0, bottom: 0, right: 0 });
    return { parts, marks };
}

// A small table of numbers on their colours
function grid(rows, value, largest, caption, mark = () => "") {
    const cells = rows.map(row => "<tr>" + row.map(cell => {
        const number = value(cell), colour = colourOf(number, largest);
        const padded = cell.padded && value !== kernelOf;
        const style = padded ? "" : `background:${css(colour)};color:${inkOn(colour)}`;
        return `<td class="${mark(cell)}" style="${style}">${plain(Number(number).toFixed(4))}</td>`;
    }).join("") + "</tr>").join("");
    return `<table class="grid"><caption>${caption}</caption>${cells}</table>`;
}

const windowOf = cell => cell.z, kernelOf = cell => cell.u, productOf = cell => cell.z * cell.u;

// z, u and their products, of each channel
function showChannels(part) {
    const cells = part.channels.flatMap(channel => channel.rows.flat());
    const most = value => largestOf(cells.map(value).map(Number)), padded = cell => cell.padded ? "padded" : "";
    const z = most(windowOf), u = most(kernelOf), p = most(productOf);
    const name = channel => word("window") + " z" + (part.channels.length > 1 ? ", c = " + channel.c : "");
    return part.channels.map(channel => `<div class="channel">
        ${grid(channel.rows, windowOf, z, name(channel), padded)}<span class="sign">×</span>
        ${grid(channel.rows, kernelOf, u, word("kernel") + " u")}<span class="sign">=</span>
        ${grid(channel.rows, productOf, p, word("products"), padded)}<span class="sign">Σ</span>
        <span class="sum"><small>${word("sum")}</small><output>${plain(channel.sum)}</output></span></div>`).join("");
}

const equations = {
    conv2d: `f(k, j, i) = b(k) + <span class="big">Σ</span><sub>c,y,x</sub> z(c, j + y, i + x) u(k, c, y, x)
        <em>(6.2)</em>`,
    relu: `τ(f) = max(0, f) <em>(6.3)</em>`,
    linear: `y(o) = b(o) + <span class="big">Σ</span><sub>i</sub> W(o, i) x(i)`,
    max_pool2d: `y(k, j, i) = max<sub>y,x</sub> x(k, 2j + y, 2i + x)`
};

function term(name, value, extra = "") {
    return `<span class="term ${extra}"><small>${name}</small><output>${plain(value)}</output></span>`;
}

// The equation, and the numbers in it
function showPart(part) {
    const result = name => term(name, part.result, "result");
    if (part.kind === "conv2d") return [equations.conv2d, showChannels(part)];
    if (part.kind === "flatten")
        return [`y(${chosen.channel}) = x(${part.from.join(", ")})`, `<div class="terms">${result("x")}</div>`];
    if (part.kind === "max_pool2d") {
        const largest = largestOf(part.window.flat().map(windowOf).map(Number));
        const table = grid(part.window, windowOf, largest, word("window"), cell => cell.largest ? "largest" : "");
        return [equations.max_pool2d,
            `<div class="channel">${table}<span class="sign">→</span>${result(word("largest"))}</div>`];
    }
    const row = cells => `<tr>${cells.map(cell => `<td>${plain(cell)}</td>`).join("")}</tr>`, { rest } = part;
    const others = rest ? word("others").replace("#", rest.count) : "";
    return [equations.linear, `<table class="list"><caption>${word("largestProducts")}</caption>
        <tr><th>i</th><th>W(o, i)</th><th>x(i)</th><th>${word("product")}</th></tr>
        ${part.terms.map(({ i, w, x, product }) => row([i, w, x, product])).join("")}
        ${rest ? `<tr><td colspan="3">${others}</td><td>${plain(rest.sum)}</td></tr>` : ""}
        </table>`];
}

function showPixel({ parts: [part, relu] }) {
    const { layer, channel, row, column } = chosen, { name, shape: [, height, width] } = layers[layer];
    const [equation, body] = showPart(part), sign = text => `<span class="sign">${text}</span>`;
    let sums = "";
    if (part.bias !== undefined) {
        sums = term(word("sum"), part.sum) + sign("+") + term(word("bias"), part.bias) + sign("=")
            + term(part.kind === "linear" ? "y" : "f", part.result, relu ? "" : "result");
        if (relu) sums += sign("→") + `<span class="equation">${equations.relu}</span>` + sign("=")
            + term("τ(f)", relu.result, "result");
        sums = `<div class="terms">${sums}</div>`;
    }
    const place = height * width === 1 ? word("value").replace("#", channel)
        : word("place").replace("#k", channel).replace("#j", row).replace("#i", column);
    document.getElementById("pixel-title").textContent = `${name}, ${place}`;
    document.getElementById("pixel").innerHTML = `<p class="equation">${equation}</p>${sums}${body}`;
    document.getElementById("pixel-text").textContent = part.text + (relu?.text ?? "");
}
