// learning.js - LeNet-5 learns in the page, with a bug in its backward pass or without; the gradient check beside it.
"use strict";

const training = { running: false, steps: 0, losses: [], layers: null, bug: 0 };
const setting = id => document.getElementById(id).value;

function resetLearning() {
    if (!c.open_learning(+setting("batch"), setting("optimizer") === "adam" ? 1 : 0, +setting("rate"), training.bug))
        throw new Error(textAt(c.mistake(LEARNING)));
    Object.assign(training, { steps: 0, losses: [], accuracy: null, layers: layersOf(LEARNING) });
    showLearning();
    checkGradients();
}

function learnStep() {
    training.losses.push(c.step());
    training.steps++;
    if (training.steps % 10 === 0) training.accuracy = c.accuracy();
    showLearning();
}

function learnOn() {
    if (!training.running) return;
    learnStep();
    setTimeout(learnOn, 0);                             // the page stays awake between two steps
}

function setRunning(running) {
    training.running = running;
    const button = document.getElementById("run");
    button.textContent = word(running ? "pause" : "run");
    button.dataset.word = running ? "pause" : "run";
    if (running) learnOn();
}

function showLearning() {
    const { losses, steps, accuracy } = training, last = losses[losses.length - 1];
    document.getElementById("steps").textContent = steps;
    document.getElementById("loss").textContent = last === undefined ? "–" : last.toFixed(4);
    document.getElementById("accuracy").textContent = accuracy === null ? "–" : Math.round(100 * accuracy) + " %";
    drawCurve(document.getElementById("curve"), losses);

    const sample = withRoom(784, address => { c.sample(3, address); return bytesAt(address, 784).slice(); });
    see(LEARNING, sample);
    const kernels = valuesOf(LEARNING, training.layers[0].name + ".weight");
    const largest = drawTiles(document.getElementById("kernels"), kernels, 6, 5, 12);
    legend(document.getElementById("kernels-legend"), -largest, largest, false);
    const maps = valuesOf(LEARNING, training.layers[1].name);
    const most = drawTiles(document.getElementById("learning-maps"), maps, 6, 28, 3);
    legend(document.getElementById("maps-legend"), 0, most, false);
}

function drawTiles(canvas, values, count, side, scale) {
    const gap = 6, context = canvas.getContext("2d"), largest = largestOf(values), across = 3;
    canvas.width = across * (side * scale + gap) - gap;
    canvas.height = Math.ceil(count / across) * (side * scale + gap) - gap;
    for (let k = 0; k < count; k++)
        for (let j = 0; j < side; j++)
            for (let i = 0; i < side; i++) {
                context.fillStyle = css(colourOf(values[(k * side + j) * side + i], largest));
                context.fillRect(k % across * (side * scale + gap) + i * scale,
                    Math.floor(k / across) * (side * scale + gap) + j * scale, scale, scale);
            }
    return largest;
}

// An SVG with the loss of each step and its mean over ten
function drawCurve(svg, losses) {
    const width = 560, height = 240, left = 44, bottom = 26, top = 10, right = 12;
    const steps = Math.max(50, losses.length);
    const most = Math.ceil(2 * Math.max(2.5, ...losses.slice(0, 400).filter(Number.isFinite))) / 2;
    const x = i => left + (width - left - right) * i / steps;
    const y = loss => top + (height - top - bottom) * (1 - Math.min(loss, most) / most);
    let marks = "";
    for (let i = 0; i <= 5; i++) {
        const loss = most * i / 5, step = Math.round(steps * i / 5);
        marks += `<line x1="${left}" x2="${width - right}" y1="${y(loss)}" y2="${y(loss)}"/>
            <text x="${left - 6}" y="${y(loss) + 4}" text-anchor="end">${loss.toFixed(1)}</text>
            <text x="${x(step)}" y="${height - 6}" text-anchor="middle">${step}</text>`;
    }
    const point = (loss, i) => Number.isFinite(loss) ? `${x(i + 1).toFixed(1)},${y(loss).toFixed(1)}` : "";
    const line = list => list.map(point).join(" ");
    const mean = losses.map((_, i) => {
        const some = losses.slice(Math.max(i - 9, 0), i + 1);
        return some.reduce((sum, loss) => sum + loss, 0) / some.length;
    });
    svg.innerHTML = `${marks}<polyline class="each" points="${line(losses)}"/>
        <polyline class="mean" points="${line(mean)}"/>`;
}

// cnn_gradcheck's rows, those of the loss and the optimizer after them
function checkGradients() {
    let failed;
    const text = takePrinted(() => failed = c.check());
    const rows = Array.from(text.matchAll(/^ *(\d+)  (\S+) +(\S+) +(\d+) checked +(\d+) kinks +(\d+) failed/gm),
        ([, , layer, tensor, checked, , wrong]) => ({ layer, tensor, checked: +checked, wrong: +wrong }));
    training.check = { failed, rows };
    showCheck();
}

// A row a layer; the loss and the optimizer have one cell each
function showCheck() {
    if (!training.check) return;
    const { failed, rows } = training.check, count = rows.reduce((sum, row) => sum + row.checked, 0);
    const verdict = document.getElementById("verdict"), sentence = word(failed ? "checkBad" : "checkGood");
    verdict.textContent = (failed ? "✗ " : "✓ ") + sentence.replace("%n", count).replace("%f", failed);
    verdict.className = failed ? "bad" : "good";

    const tensors = ["input", "weight", "bias"], names = [...new Set(rows.map(row => row.layer))];
    const cell = row => !row ? "<td></td>" : row.wrong
        ? `<td class="bad">✗ ${row.wrong} / ${row.checked}</td>` : `<td>✓ ${row.checked}</td>`;
    const row = name => {
        const own = rows.filter(row => row.layer === name);
        const [input, ...others] = tensors.map(tensor => own.find(row => row.tensor === tensor));
        return `<tr><th scope="row">${name}</th>${[input ?? own[0], ...others].map(cell).join("")}</tr>`;
    };
    const head = ["layer", ...tensors].map(name => `<th scope="col">${word(name)}</th>`).join("");
    document.getElementById("check-rows").innerHTML = `<tr>${head}</tr>${names.map(row).join("")}`;
}

function startLearning() {
    document.getElementById("run").onclick = () => setRunning(!training.running);
    document.getElementById("step").onclick = () => { setRunning(false); learnStep(); };
    document.getElementById("reset").onclick = () => { setRunning(false); resetLearning(); };
    document.getElementById("check").onclick = checkGradients;
    document.getElementById("rate").onchange = event => c.set_lr(+event.target.value);
    for (const id of ["batch", "optimizer"])
        document.getElementById(id).onchange = () => {
            if (id === "optimizer") document.getElementById("rate").value = setting(id) === "adam" ? "0.003" : "0.03";
            setRunning(false);
            resetLearning();
        };
    for (const radio of document.querySelectorAll("[name=bug]"))
        radio.onchange = () => {
            training.bug = +radio.value;
            c.set_bug(training.bug);
            checkGradients();
            keepState();
        };
}
