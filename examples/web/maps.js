// maps.js - the network from left to right: every layer's outputs as pictures, each value a pixel that can be chosen.
"use strict";

let layers = [];                                        // of the lesson; [0] is the picture itself
let chosen = { layer: 1, channel: 0, row: 14, column: 14 };
const SHARP = 2;                                        // pixels of a canvas for each pixel of the page

// How many maps stand side by side, and how large a value is drawn
function arrangement([channels, height, width]) {
    if (height * width === 1)
        return channels > 1000 ? { across: 84, size: 2, gap: 0 }
            : channels > 10 ? { across: 7, size: 13, gap: 1 } : { across: 1, size: 20, gap: 3 };
    if (channels === 1) return { across: 1, size: 5, gap: 0 };
    return channels <= 6 ? { across: 2, size: height > 14 ? 2.5 : 4, gap: 4 }
        : channels <= 16 ? { across: 4, size: height > 7 ? 3 : 4, gap: 4 } : { across: 12, size: 2.5, gap: 2 };
}

// Draws the maps of one layer; marks: [{channel (or -1: each), top, left, bottom, right, strong}]
function drawMaps(canvas, shape, values, grey, marks) {
    const [channels, height, width] = shape, { across, size, gap } = arrangement(shape);
    const down = Math.ceil(channels / across), largest = largestOf(values);
    const wide = across * (width * size + gap) - gap, high = down * (height * size + gap) - gap;
    canvas.width = wide * SHARP;
    canvas.height = high * SHARP;
    canvas.style.width = wide + "px";
    const image = new ImageData(across * width, down * height), table = [];
    for (let i = -128; i <= 128; i++) table.push(grey ? greyOf(i / 128) : colourOf(i, 128));
    for (let k = 0; k < channels; k++)
        for (let j = 0; j < height; j++)
            for (let i = 0; i < width; i++) {
                const value = values[(k * height + j) * width + i] / (grey ? 1 : largest || 1);
                const at = (Math.floor(k / across) * height + j) * across * width + k % across * width + i;
                image.data.set(table[128 + Math.round(128 * value)], 4 * at);
                image.data[4 * at + 3] = 255;
            }
    const small = document.createElement("canvas").getContext("2d"), context = canvas.getContext("2d");
    small.canvas.width = image.width;
    small.canvas.height = image.height;
    small.putImageData(image, 0, 0);
    context.imageSmoothingEnabled = false;
    context.scale(SHARP, SHARP);
    if (!gap) context.drawImage(small.canvas, 0, 0, wide, high);
    else for (let k = 0; k < channels; k++) {
        const right = k % across, below = Math.floor(k / across);
        context.drawImage(small.canvas, right * width, below * height, width, height,
            right * (width * size + gap), below * (height * size + gap), width * size, height * size);
    }
    for (const mark of marks) {
        for (let k = 0; k < channels; k++) {
            if (mark.channel >= 0 && mark.channel !== k) continue;
            const x = k % across * (width * size + gap) + mark.left * size;
            const y = Math.floor(k / across) * (height * size + gap) + mark.top * size;
            const w = (mark.right - mark.left + 1) * size, h = (mark.bottom - mark.top + 1) * size;
            context.lineWidth = 3;
            context.strokeStyle = variable("--paper");
            context.strokeRect(x - 1, y - 1, w + 2, h + 2);
            context.lineWidth = 1.5;
            context.strokeStyle = variable(mark.strong ? "--mark" : "--ink");
            context.strokeRect(x - 1, y - 1, w + 2, h + 2);
        }
    }
    return largest;
}

// Which value lies at this point of the canvas
function valueAt(canvas, shape, event) {
    const [channels, height, width] = shape, { across, size, gap } = arrangement(shape);
    const box = canvas.getBoundingClientRect();
    const shrunk = canvas.width / SHARP / box.width;
    const x = (event.clientX - box.left) * shrunk, y = (event.clientY - box.top) * shrunk;
    const right = Math.floor(x / (width * size + gap)), down = Math.floor(y / (height * size + gap));
    const channel = down * across + right;
    if (right >= across || channel >= channels || x < 0 || y < 0) return null;
    return {
        channel,
        row: Math.min(Math.floor((y - down * (height * size + gap)) / size), height - 1),
        column: Math.min(Math.floor((x - right * (width * size + gap)) / size), width - 1)
    };
}

// A key moves the chosen value by one; PageUp and PageDown go to the map before and after.
function moved(place, [channels, height, width], key, across = 1) {
    const flat = height * width === 1;
    let { channel, row, column } = place;
    if (key === "PageUp" || (flat && key === "ArrowLeft")) channel--;
    else if (key === "PageDown" || (flat && key === "ArrowRight")) channel++;
    else if (key === "ArrowUp") flat ? channel -= across : row--;
    else if (key === "ArrowDown") flat ? channel += across : row++;
    else if (key === "ArrowLeft") column--;
    else if (key === "ArrowRight") column++;
    else return null;
    const inside = (value, count) => Math.min(Math.max(value, 0), count - 1);
    return { channel: inside(channel, channels), row: inside(row, height), column: inside(column, width) };
}

function choose(layer, place) {
    chosen = { layer, ...place };
    showNetwork();
    keepState();
}

// One figure a layer. A convolution or linear layer and its activation stand in one column.
function buildNetwork() {
    layers = [{ name: "input", kind: "input", shape: [1, 28, 28], parameters: 0 }, ...layersOf(LESSON)];
    let column;
    layers.forEach((layer, i) => {
        if (layer.kind !== "relu" && layer.kind !== "flatten") {
            column = document.createElement("div");
            column.className = "column";
            document.getElementById("network").append(column);
        }
        const figure = document.createElement("figure");
        figure.innerHTML = `<figcaption><b></b><small></small><small></small></figcaption>
            <canvas></canvas><div class="legend"></div>`;
        column.append(figure);
        layer.figure = figure;
        layer.canvas = figure.querySelector("canvas");
        layer.canvas.id = "map-" + layer.name;
        if (!i) return;
        layer.canvas.tabIndex = 0;
        layer.canvas.setAttribute("role", "application");
        layer.canvas.addEventListener("click", event => {
            const place = valueAt(layer.canvas, layer.shape, event);
            if (place) choose(i, place);
        });
        layer.canvas.addEventListener("keydown", event => {
            const here = chosen.layer === i ? chosen : { channel: 0, row: 0, column: 0 };
            const place = moved(here, layer.shape, event.key, arrangement(layer.shape).across);
            if (!place) return;
            choose(i, place);
            event.preventDefault();
        });
    });
}

function nameNetwork() {                                // in the language of the page
    layers.forEach((layer, i) => {
        const [channels, height, width] = layer.shape;
        const shape = height * width > 1 ? `${channels} × ${height} × ${width}` : `${channels}`;
        const parameters = layer.parameters ? `${layer.parameters.toLocaleString("en")} ${word("parameters")}` : "";
        layer.figure.querySelector("b").textContent = word(layer.kind);
        layer.figure.querySelectorAll("small").forEach((line, k) => line.textContent = [shape, parameters][k]);
        layer.canvas.title = layer.name;
        const label = [word(layer.kind), layer.name, shape, word(i ? "moveHint" : "seen")].join(", ");
        layer.canvas.setAttribute("aria-label", label);
        if (!i) layer.canvas.setAttribute("role", "img");
    });
}

// Everything that follows from the picture and the chosen value
function showNetwork() {
    const pixel = explainPixel();
    layers.forEach((layer, i) => {
        const values = i ? valuesOf(LESSON, layer.name) : Float32Array.from(picture, byte => byte / 255);
        const marks = pixel.marks.filter(mark => mark.layer === i);
        const largest = drawMaps(layer.canvas, layer.shape, values, !i, marks);
        legend(layer.figure.querySelector(".legend"), Math.min(...values), largest, !i);
    });
    const seen = document.getElementById("seen").getContext("2d");
    seen.imageSmoothingEnabled = false;
    seen.drawImage(pictureCanvas(picture, 28), 0, 0, 28, 28);
    showBars(probabilities());
    showPixel(pixel);
}

function showBars(shares) {
    const list = document.getElementById("bars");
    if (!list.children.length)
        list.innerHTML = Array.from(shares, (_, i) =>
            `<li><span>${i}</span><i><b></b></i><output></output></li>`).join("");
    const best = shares.indexOf(Math.max(...shares));
    const empty = picture.every(byte => byte === 0);
    shares.forEach((share, i) => {
        const item = list.children[i];
        item.className = i === best && !empty ? "best" : "";
        item.querySelector("b").style.width = (empty ? 0 : 100 * share) + "%";
        item.querySelector("output").textContent = empty ? "" : (100 * share).toFixed(1) + " %";
    });
    document.getElementById("answer").textContent = empty ? "–" : best;
}
