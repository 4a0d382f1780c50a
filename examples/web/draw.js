// draw.js - drawing a digit: strokes, undo, and the 28 x 28 picture that becomes of them.
"use strict";

const PAPER = 280, PEN = 22;                            // pixels of the canvas, whatever its size on the screen
let strokes = [];                                       // each a list of x, y
let shownDigit = -1;                                    // the test digit below the strokes, or -1
let digits = [];                                        // those in the page: {label, pixels}
let picture = new Uint8Array(784);                      // what the network sees
const ink = document.createElement("canvas").getContext("2d", { willReadFrequently: true });    // white on black
ink.canvas.width = ink.canvas.height = PAPER;

function readDigits() {
    const bytes = embedded("digits");
    for (let at = 0; at < bytes.length; at += 785)
        digits.push({ label: bytes[at], pixels: bytes.slice(at + 1, at + 785) });
}

function pictureCanvas(pixels, side) {                  // grey, a canvas of its own size
    const context = document.createElement("canvas").getContext("2d");
    context.canvas.width = context.canvas.height = side;
    const image = context.createImageData(side, side);
    pixels.forEach((value, i) => image.data.set([value, value, value, 255], 4 * i));
    context.putImageData(image, 0, 0);
    return context.canvas;
}

function drawInk() {
    ink.fillStyle = "black";
    ink.fillRect(0, 0, PAPER, PAPER);
    if (shownDigit >= 0) ink.drawImage(pictureCanvas(digits[shownDigit].pixels, 28), 0, 0, PAPER, PAPER);
    ink.strokeStyle = "white";
    ink.lineWidth = PEN;
    ink.lineCap = ink.lineJoin = "round";
    for (const stroke of strokes) {
        ink.beginPath();
        ink.moveTo(stroke[0], stroke[1]);
        for (let i = 0; i < stroke.length; i += 2) ink.lineTo(stroke[i], stroke[i + 1]);
        ink.stroke();
    }
}

// The canvas as the network is to see it: page.c centres it. A test digit alone is shown as it is.
function pictureOf(context) {
    const size = context.canvas.width, rgba = context.getImageData(0, 0, size, size).data;
    return withRoom(size * size + 784, address => {
        const bytes = bytesAt(address, size * size);
        for (let i = 0; i < bytes.length; i++) bytes[i] = rgba[4 * i];
        c.centre(address + size * size, address, size);
        return bytesAt(address + size * size, 784).slice();
    });
}

function drawingChanged() {
    drawInk();
    const paper = document.getElementById("paper").getContext("2d");
    paper.drawImage(ink.canvas, 0, 0);
    picture = shownDigit >= 0 && !strokes.length ? digits[shownDigit].pixels.slice() : pictureOf(ink);
    document.getElementById("hint").hidden = strokes.length > 0 || shownDigit >= 0;
    document.getElementById("undo").disabled = !strokes.length && shownDigit < 0;
    see(LESSON, picture);
    showNetwork();
}

function undo() {
    if (strokes.length) strokes.pop();
    else shownDigit = -1;
    drawingChanged();
    keepState();
}

function clearDrawing() {
    strokes = [];
    shownDigit = -1;
    drawingChanged();
    keepState();
}

function showDigit(i) {
    strokes = [];
    shownDigit = i;
    drawingChanged();
    keepState();
}

function randomDigit() {
    let i;
    do i = Math.floor(Math.random() * digits.length); while (i === shownDigit && digits.length > 1);
    showDigit(i);
}

function startDrawing() {
    const paper = document.getElementById("paper");
    const at = event => {
        const box = paper.getBoundingClientRect();
        return [(event.clientX - box.left) * PAPER / box.width, (event.clientY - box.top) * PAPER / box.height]
            .map(value => Math.round(Math.min(Math.max(value, 0), PAPER)));
    };
    let drawing = false, waiting = false;
    const soon = () => {                                // once a frame, however many points a pen sends
        if (waiting) return;
        waiting = true;
        requestAnimationFrame(() => { waiting = false; drawingChanged(); });
    };
    paper.addEventListener("pointerdown", event => {
        if (event.button) return;
        paper.setPointerCapture(event.pointerId);
        drawing = true;
        strokes.push(at(event));
        soon();
        event.preventDefault();
    });
    paper.addEventListener("pointermove", event => {
        if (!drawing) return;
        const stroke = strokes[strokes.length - 1];
        for (const one of event.getCoalescedEvents?.() ?? [event]) {
            const [x, y] = at(one), end = stroke.length;
            if (Math.hypot(x - stroke[end - 2], y - stroke[end - 1]) >= 4) stroke.push(x, y);
        }
        soon();
    });
    const end = () => {
        if (drawing) keepState();
        drawing = false;
    };
    paper.addEventListener("pointerup", end);
    paper.addEventListener("pointercancel", end);
    paper.addEventListener("keydown", event => {
        if (event.key === "Delete" || event.key === "Backspace") clearDrawing();
        else if (event.key === "z" && (event.ctrlKey || event.metaKey)) undo();
        else return;
        event.preventDefault();
    });
    document.getElementById("undo").onclick = undo;
    document.getElementById("clear").onclick = clearDrawing;
    document.getElementById("random").onclick = randomDigit;
}
