// colours.js - numbers as colours: blue below zero, orange above, the paper's own colour at zero.
"use strict";

const dark = matchMedia("(prefers-color-scheme: dark)");
const scales = {                                        // zero, half way, the largest: below and above
    light: { zero: [248, 248, 246], above: [[246, 171, 96], [166, 54, 3]], below: [[116, 169, 222], [8, 60, 140]] },
    dark: { zero: [32, 36, 43], above: [[176, 84, 20], [255, 190, 120]], below: [[36, 96, 170], [150, 200, 255]] }
};

function colourOf(value, largest) {
    const scale = dark.matches ? scales.dark : scales.light;
    const t = largest > 0 ? Math.min(Math.abs(value) / largest, 1) : 0;
    const [half, full] = value < 0 ? scale.below : scale.above;
    const [from, to, share] = t < 0.5 ? [scale.zero, half, 2 * t] : [half, full, 2 * t - 1];
    return from.map((part, i) => Math.round(part + (to[i] - part) * share));
}

const greyOf = value => Array(3).fill(Math.round(255 * Math.min(Math.max(value, 0), 1)));
const css = colour => `rgb(${colour.join(",")})`;

function inkOn([red, green, blue]) {                    // what can be read on that colour
    const linear = [red, green, blue].map(v => ((v / 255 + 0.055) / 1.055) ** 2.4);
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] > 0.18 ? "#000" : "#fff";
}

const variable = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function largestOf(values) {
    let largest = 0;
    for (const value of values) largest = Math.max(largest, Math.abs(value));
    return largest;
}

// A legend: the scale's colours with the numbers at its ends. A layer without negative numbers shows the upper half.
function legend(element, least, largest, grey) {
    const stops = [];
    const from = grey ? 0 : least < 0 ? -largest : 0, to = grey ? 1 : largest;
    for (let i = 0; i <= 8; i++) {
        const value = from + (to - from) * i / 8;
        stops.push(css(grey ? greyOf(value) : colourOf(value, largest)));
    }
    const short = value => value === 0 ? "0" : Number(value.toPrecision(2)).toString().replace("-", "−");
    element.innerHTML = `<span>${short(from)}</span>
        <i style="background:linear-gradient(90deg,${stops})"></i><span>${short(to)}</span>`;
}
