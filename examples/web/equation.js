// equation.js - the equation alone: an image, a kernel to edit, and the window that slides.
"use strict";

const presets = {                                       // 3 x 3; a larger kernel has them in its middle
    vertical: [-1, 0, 1, -2, 0, 2, -1, 0, 1], horizontal: [-1, -2, -1, 0, 0, 0, 1, 2, 1],
    blur: null, sharpen: [0, -1, 0, -1, 5, -1, 0, -1, 0], identity: [0, 0, 0, 0, 1, 0, 0, 0, 0]
};
const MOST_SIDE = 96;                                   // of an image: pixels that can still be seen
const filter = {
    source: "digit", image: null, width: 28, height: 28,
    size: 3, kernel: presets.vertical.slice(), mode: "zeros", stride: 1, dilation: 1, row: 9, column: 12
};
const modes = ["zeros", "replicate", "reflect", "circular"];        // in cnn_padding_mode's order
const filterPadding = () => filter.mode === "none" ? 0 : Math.floor(filter.size / 2) * filter.dilation;

function presetKernel(name, size) {
    if (name === "blur") return Array(size * size).fill(+(1 / (size * size)).toFixed(4));
    const kernel = Array(size * size).fill(0), first = (size - 3) / 2;
    presets[name].forEach((value, i) => kernel[(first + Math.floor(i / 3)) * size + first + i % 3] = value);
    return kernel;
}

function presetOf(kernel) {
    return Object.keys(presets).find(name => String(presetKernel(name, filter.size)) === String(kernel)) ?? "own";
}

function shapesImage() {                                // edges in all directions, and none
    const context = document.createElement("canvas").getContext("2d");
    context.canvas.width = context.canvas.height = 64;
    context.fillStyle = "#333";
    context.fillRect(0, 0, 64, 64);
    context.fillStyle = "#eee";
    context.fillRect(6, 8, 20, 18);
    context.beginPath();
    context.arc(46, 18, 12, 0, 7);
    context.fill();
    context.fillStyle = "#999";
    context.beginPath();
    context.moveTo(32, 34);
    context.lineTo(58, 58);
    context.lineTo(6, 58);
    context.fill();
    return context.canvas;
}

function setImage(source, picture, width, height) {     // anything that a canvas can draw, as grey bytes
    const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const shrink = Math.min(1, MOST_SIDE / Math.max(width, height));
    filter.source = source;
    filter.width = context.canvas.width = Math.max(Math.round(width * shrink), 8);
    filter.height = context.canvas.height = Math.max(Math.round(height * shrink), 8);
    context.drawImage(picture, 0, 0, filter.width, filter.height);
    const rgba = context.getImageData(0, 0, filter.width, filter.height).data;
    filter.image = new Uint8Array(filter.width * filter.height);
    for (let i = 0; i < filter.image.length; i++)
        filter.image[i] = Math.round(0.299 * rgba[4 * i] + 0.587 * rgba[4 * i + 1] + 0.114 * rgba[4 * i + 2]);
}

function takeSource(source) {
    if (source === "shapes") setImage("shapes", shapesImage(), 64, 64);
    else if (source === "digit") {
        const blank = picture.every(byte => byte === 0);
        setImage("digit", pictureCanvas(blank ? digits[0].pixels : picture, 28), 28, 28);
    }
}

function buildKernel() {                                // inputs for its weights
    const table = document.getElementById("kernel");
    table.innerHTML = "";
    for (let j = 0; j < filter.size; j++) {
        const row = table.insertRow();
        for (let i = 0; i < filter.size; i++) {
            const input = document.createElement("input");
            input.type = "number";
            input.step = "any";
            input.value = filter.kernel[j * filter.size + i];
            input.setAttribute("aria-label", word("weightAt").replace("#j", j).replace("#i", i));
            input.addEventListener("input", () => {
                if (!Number.isFinite(input.valueAsNumber)) return;
                filter.kernel[j * filter.size + i] = input.valueAsNumber;
                showEquation();
                keepState();
            });
            row.insertCell().append(input);
        }
    }
}

// Image and feature map at the same scale; around the image its padding, hatched
function drawPlane(canvas, values, width, height, margin, grey, scale, mark) {
    canvas.width = (width + 2 * margin) * scale * SHARP;
    canvas.height = (height + 2 * margin) * scale * SHARP;
    canvas.style.width = canvas.width / SHARP + "px";
    const context = canvas.getContext("2d"), largest = largestOf(values), image = new ImageData(width, height);
    const colour = value => grey ? greyOf(value) : colourOf(value, largest);
    values.forEach((value, i) => image.data.set([...colour(value), 255], 4 * i));
    const small = document.createElement("canvas").getContext("2d");
    small.canvas.width = width;
    small.canvas.height = height;
    small.putImageData(image, 0, 0);
    context.scale(SHARP, SHARP);
    context.fillStyle = variable("--ground");
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.strokeStyle = variable("--line");
    for (let x = -canvas.height; x < canvas.width; x += 6) {
        context.beginPath();
        context.moveTo(x, 0);
        context.lineTo(x + canvas.height, canvas.height);
        context.stroke();
    }
    context.imageSmoothingEnabled = false;
    context.drawImage(small.canvas, margin * scale, margin * scale, width * scale, height * scale);
    for (const [top, left, strong] of mark) {
        context.strokeStyle = variable("--paper");
        context.lineWidth = 3;
        context.strokeRect((left + margin) * scale, (top + margin) * scale, scale, scale);
        context.strokeStyle = variable("--mark");
        context.lineWidth = 1.5;
        context.strokeRect((left + margin) * scale, (top + margin) * scale, scale, scale);
    }
    return largest;
}

function showEquation() {
    if (!filter.image) takeSource(filter.source === "file" ? "digit" : filter.source);
    const { size, stride, dilation, width, height } = filter, padding = filterPadding();
    const message = document.getElementById("equation-error"), mode = Math.max(modes.indexOf(filter.mode), 0);
    const good = withRoom(4 * size * size, address => {
        floatsAt(address, size * size).set(filter.kernel);
        return c.open_filter(height, width, size, address, padding, mode, stride, dilation);
    });
    message.textContent = good ? "" : textAt(c.mistake(FILTER));
    document.getElementById("equation-result").hidden = !good;
    if (!good) return;
    see(FILTER, filter.image);
    const values = valuesOf(FILTER, "0"), [{ shape: [, high, wide] }] = layersOf(FILTER);
    Object.assign(filter, { high, wide });
    filter.row = Math.min(filter.row, high - 1);
    filter.column = Math.min(filter.column, wide - 1);
    const part = parse(explained(FILTER, "0", 0, filter.row, filter.column)), inWindow = [];
    for (let y = 0; y < size; y++)
        for (let x = 0; x < size; x++) inWindow.push([part.top + y * dilation, part.left + x * dilation]);
    filter.scale = Math.max(3, Math.floor(360 / Math.max(width, height)));
    const image = Float32Array.from(filter.image, byte => byte / 255);
    drawPlane(document.getElementById("image"), image, width, height, padding, true, filter.scale, inWindow);
    const largest = drawPlane(document.getElementById("result"), values, wide, high, 0, false, filter.scale,
        [[filter.row, filter.column]]);
    legend(document.getElementById("image-legend"), 0, 1, true);
    legend(document.getElementById("result-legend"), Math.min(...values), largest, false);
    document.getElementById("image-size").textContent = `${height} × ${width}`;
    document.getElementById("result-size").textContent = `${high} × ${wide}`;
    const times = dilation > 1 ? dilation : "";
    document.getElementById("slide").innerHTML = `<p class="equation">
        f(${filter.row}, ${filter.column}) = <span class="big">Σ</span><sub>y,x</sub>
        z(${plain(part.top)} + ${times}y, ${plain(part.left)} + ${times}x) u(y, x)
        = <output>${plain(part.result)}</output> <em>(6.2)</em></p>` + showChannels(part);
    document.getElementById("preset").value = presetOf(filter.kernel);
}

function slideTo(row, column) {
    if (row === filter.row && column === filter.column) return;
    Object.assign(filter, { row, column });
    showEquation();
}

function fillControls() {                               // from the state
    for (const key of ["source", "size", "mode", "stride", "dilation"])
        document.getElementById(key).value = filter[key];
    document.getElementById("file-row").hidden = filter.source !== "file";
    buildKernel();
}

function startEquation() {
    const changed = () => { fillControls(); showEquation(); keepState(); };
    document.getElementById("preset").onchange = event => {
        if (event.target.value !== "own") filter.kernel = presetKernel(event.target.value, filter.size);
        changed();
    };
    document.getElementById("size").onchange = event => {
        const name = presetOf(filter.kernel), old = filter.size, kernel = filter.kernel;
        filter.size = +event.target.value;
        const shift = (filter.size - old) / 2;          // an own kernel stays in the middle
        const kept = (_, at) => {
            const j = Math.floor(at / filter.size) - shift, i = at % filter.size - shift;
            return j >= 0 && i >= 0 && j < old && i < old ? kernel[j * old + i] : 0;
        };
        const own = Array.from({ length: filter.size ** 2 }, kept);
        filter.kernel = name === "own" ? own : presetKernel(name, filter.size);
        changed();
    };
    document.getElementById("mode").onchange = event => { filter.mode = event.target.value; changed(); };
    for (const key of ["stride", "dilation"])
        document.getElementById(key).onchange = event => { filter[key] = +event.target.value; changed(); };
    document.getElementById("source").onchange = event => {
        filter.source = event.target.value;
        takeSource(filter.source);
        changed();
        if (filter.source === "file") document.getElementById("file").click();
    };
    document.getElementById("file").onchange = async event => {
        const [file] = event.target.files;
        if (!file) return;
        try {
            const bitmap = await createImageBitmap(file);
            setImage("file", bitmap, bitmap.width, bitmap.height);
            changed();
        } catch {
            document.getElementById("equation-error").textContent = word("noPicture").replace("#", file.name);
        }
    };
    const result = document.getElementById("result");
    const follow = event => {
        const box = result.getBoundingClientRect();
        const inside = (value, count) => Math.min(Math.max(Math.floor(value * count), 0), count - 1);
        slideTo(inside((event.clientY - box.top) / box.height, filter.high),
            inside((event.clientX - box.left) / box.width, filter.wide));
    };
    result.addEventListener("pointermove", follow);
    result.addEventListener("click", event => { follow(event); keepState(); });
    result.addEventListener("keydown", event => {
        const here = { channel: 0, row: filter.row, column: filter.column };
        const place = moved(here, [1, filter.high, filter.wide], event.key);
        if (!place || event.key.startsWith("Page")) return;
        slideTo(place.row, place.column);
        keepState();
        event.preventDefault();
    });
}
