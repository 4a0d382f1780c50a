// module.js - the WebAssembly module: what it needs from a system, and its functions with strings and arrays.
"use strict";

const LESSON = 0, FILTER = 1, LEARNING = 2;             // the networks of page.c
let c;                                                  // its exported functions
let printed = "";                                       // what it has written to stdout

const bytesAt = (address, count) => new Uint8Array(c.memory.buffer, address, count);
const wordsAt = (address, count) => new Uint32Array(c.memory.buffer, address, count);
const floatsAt = (address, count) => new Float32Array(c.memory.buffer, address, count);

function textAt(address) {                              // a C string; null for NULL
    if (!address) return null;
    const bytes = new Uint8Array(c.memory.buffer, address);
    return new TextDecoder().decode(bytes.slice(0, bytes.indexOf(0)));
}

// Calls run(address) with room for so many bytes.
function withRoom(count, run) {
    const address = c.room(count);
    try { return run(address); } finally { c.release(address); }
}

function withText(text, run) {
    const bytes = new TextEncoder().encode(text + "\0");
    return withRoom(bytes.length, address => { bytesAt(address, bytes.length).set(bytes); return run(address); });
}

function takePrinted(run) {                             // what a call prints
    printed = "";
    run();
    return printed;
}

// The few calls of WASI that its C library makes: there are no files, arguments or variables, only output.
const wasi = {
    fd_write(file, parts, count, written) {
        const list = wordsAt(parts, 2 * count);
        let total = 0;
        for (let i = 0; i < count; i++) {
            printed += new TextDecoder().decode(bytesAt(list[2 * i], list[2 * i + 1]));
            total += list[2 * i + 1];
        }
        wordsAt(written, 1)[0] = total;
        return 0;
    },
    fd_fdstat_get(file, status) { bytesAt(status, 24).fill(0); bytesAt(status, 1)[0] = 2; return 0; },   // a terminal
    fd_close: () => 8,                                  // 8: no such file
    fd_seek: () => 8,
    environ_sizes_get(count, size) { wordsAt(count, 1)[0] = wordsAt(size, 1)[0] = 0; return 0; },
    environ_get: () => 0,
    clock_time_get(clock, precision, time) {
        new BigUint64Array(c.memory.buffer, time, 1)[0] = BigInt(Math.round(1e6 * performance.now()));
        return 0;
    },
    proc_exit(code) { throw new Error("the module ended with " + code); }
};

function embedded(id) {                                 // bytes that pack.c put into the page
    const text = atob(document.getElementById(id).textContent), bytes = new Uint8Array(text.length);
    for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i);
    return bytes;
}

async function unpacked(bytes) {
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).arrayBuffer();
}

async function startModule() {
    const module = await unpacked(embedded("module"));
    c = (await WebAssembly.instantiate(module, { wasi_snapshot_preview1: wasi })).instance.exports;
    c._initialize();
    const weights = embedded("weights");
    withRoom(weights.length, address => {
        bytesAt(address, weights.length).set(weights);
        if (!c.open_lesson(address, weights.length)) throw new Error(textAt(c.mistake(LESSON)));
    });
}

// ---- what cnn.h tells about a network ----

function layersOf(network) {                            // [{name, shape: [channels, height, width], parameters}]
    const layers = [], keys = [];
    for (let i = 0, key; (key = textAt(c.key(network, i))); i++) keys.push(key);
    for (let i = 0, name; (name = textAt(c.layer_name(network, i))); i++) {
        const shape = withText(name, of => withRoom(16, sizes => {
            c.shape(network, of, sizes);
            return Array.from(wordsAt(sizes, 4)).slice(1);
        }));
        const own = keys.filter(key => key.startsWith(name + "."));
        const parameters = own.reduce((sum, key) => sum + valuesOf(network, key).length, 0);
        layers.push({ name, shape, parameters });
    }
    const rows = takePrinted(() => c.summary(network)).matchAll(/\((\w+)\)  /g);
    layers.forEach(layer => layer.kind = rows.next().value[1]);
    return layers;
}

function valuesOf(network, key) {                       // a layer's output, or a parameter
    return withText(key, of => {
        const count = c.numbers(network, of, 0, 0);
        return withRoom(4 * count, values => {
            c.numbers(network, of, values, count);
            return floatsAt(values, count).slice();
        });
    });
}

function see(network, pixels) {
    bytesAt(c.pixels(network), pixels.length).set(pixels);
    c.look(network);
}

function probabilities() {
    const logits = valuesOf(LESSON, "classifier");
    return withRoom(80, address => {
        floatsAt(address, 10).set(logits);
        c.softmax(address + 40, address, 10);
        return floatsAt(address + 40, 10).slice();
    });
}

function explained(network, layer, channel, row, column) {
    return takePrinted(() => withText(layer, name => c.explain(network, name, channel, row, column)));
}
