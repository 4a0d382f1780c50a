// page.js - the page as a whole: its three parts, its address, its language.
"use strict";

const parts = ["network", "equation", "learning"];
let shownPart = "network";

// The address holds what is seen: #part=network&digit=3&layer=input_layer.0&at=2,9,14&lang=ko
function keepState() {
    const state = new URLSearchParams({ part: shownPart, lang: language });
    if (shownDigit >= 0) state.set("digit", shownDigit);
    const short = stroke => stroke.map(number => number.toString(36).padStart(2, "0")).join("");
    if (strokes.length || shownDigit < 0) state.set("ink", strokes.map(short).join("."));
    state.set("layer", layers[chosen.layer].name);
    state.set("at", [chosen.channel, chosen.row, chosen.column].join(","));
    if (shownPart === "equation") {
        state.set("kernel", filter.kernel.join(","));
        const { source, mode, stride, dilation, row, column } = filter;
        state.set("conv", [source, mode, stride, dilation, row, column].join(","));
    }
    if (shownPart === "learning") state.set("bug", training.bug);
    history.replaceState(null, "", "#" + state.toString().replaceAll("%2C", ","));
}

function readState() {
    const state = new URLSearchParams(location.hash.slice(1));
    const numbers = key => (state.get(key) ?? "").split(",").map(Number);
    if (words[state.get("lang")]) language = state.get("lang");
    else if (navigator.language.startsWith("ko")) language = "ko";
    if (parts.includes(state.get("part"))) shownPart = state.get("part");
    shownDigit = /^\d+$/.test(state.get("digit")) && +state.get("digit") < digits.length ? +state.get("digit") : -1;
    strokes = (state.get("ink") ?? "").split(".").filter(text => /^([0-9a-z]{4})+$/.test(text))
        .map(text => text.match(/../g).map(pair => Math.min(parseInt(pair, 36), PAPER)));
    if (shownDigit < 0 && !state.has("ink")) shownDigit = 0;        // something to begin with
    const layer = layers.findIndex(one => one.name === state.get("layer")), [channel, row, column] = numbers("at");
    if (layer > 0) {
        const [k, j, i] = layers[layer].shape;
        if (channel >= 0 && channel < k && row >= 0 && row < j && column >= 0 && column < i)
            chosen = { layer, channel, row, column };
    }
    const kernel = numbers("kernel");
    const [source, mode, stride, dilation, top, left] = (state.get("conv") ?? "").split(",");
    if ((kernel.length === 9 || kernel.length === 25) && kernel.every(Number.isFinite))
        Object.assign(filter, { kernel, size: Math.sqrt(kernel.length) });
    if (["digit", "shapes"].includes(source)) filter.source = source;
    if (mode === "none" || modes.includes(mode)) filter.mode = mode;
    if (+stride >= 1 && +stride <= 3) filter.stride = +stride;
    if (+dilation >= 1 && +dilation <= 3) filter.dilation = +dilation;
    if (+top >= 0) filter.row = +top;
    if (+left >= 0) filter.column = +left;
    if (+state.get("bug") >= 0 && +state.get("bug") <= 5) training.bug = +state.get("bug");
    document.querySelector(`[name=bug][value="${training.bug}"]`).checked = true;
}

function showTab(part) {
    shownPart = part;
    for (const one of parts) {
        document.getElementById("part-" + one).hidden = one !== part;
        document.getElementById("tab-" + one).setAttribute("aria-selected", one === part);
        document.getElementById("tab-" + one).tabIndex = one === part ? 0 : -1;
    }
    if (part !== "learning") setRunning(false);
    if (part === "equation") {
        if (filter.source === "digit") takeSource("digit");
        fillControls();
        showEquation();
    }
    if (part === "learning" && !training.layers) resetLearning();
    else if (part === "learning") {
        c.set_bug(training.bug);                        // the address may have named another one
        showLearning();
        checkGradients();
    }
}

function setLanguage(name) {
    language = name;
    nameEverything();
    nameNetwork();
    fillControls();
    showAll();
    showCheck();
}

function showAll() {
    drawingChanged();
    showTab(shownPart);
}

async function start() {
    await startModule();
    readDigits();
    buildNetwork();
    readState();
    nameEverything();
    nameNetwork();
    startDrawing();
    startEquation();
    startLearning();
    for (const part of parts) {
        const tab = document.getElementById("tab-" + part);
        tab.onclick = () => { showTab(part); keepState(); };
        tab.onkeydown = event => {
            const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
            if (!step) return;
            const next = parts[(parts.indexOf(part) + step + parts.length) % parts.length];
            document.getElementById("tab-" + next).focus();
            showTab(next);
            keepState();
        };
    }
    for (const button of document.querySelectorAll("[data-language]"))
        button.onclick = () => { setLanguage(button.dataset.language); keepState(); };
    addEventListener("hashchange", () => { readState(); setLanguage(language); });
    dark.addEventListener("change", showAll);
    showAll();
    document.body.dataset.ready = Math.round(performance.now());        // milliseconds
}

start().catch(error => {
    document.getElementById("failure").textContent = String(error.message);
    console.error(error);
});
