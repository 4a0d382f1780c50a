#!/usr/bin/env python3
"""web.py - lenet5.html in real browsers, opened from a file with the network cut off: a stroke, pixels beside cnn_explain,
logits beside the native ones, the page's own centring on MNIST, the kernel page, training and its planted bugs, the address,
Korean, a phone, axe's rules, an empty console. Run by make test-web; DATA is the folder of MNIST's files."""
import base64, glob, gzip, importlib.util, json, os, re, shutil, subprocess, sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
from browsers import Chromium, Firefox

PAGE = "file://" + os.path.abspath("lenet5.html")
WEIGHTS = "build/web/lenet5.safetensors"                # the float16 file that is in the page
count = {"passed": 0, "failed": 0, "skipped": 0}


def ok(what, good, said=""):
    count["passed" if good else "failed"] += 1
    if not good:
        print(f"FAIL web: {what}" + (f": {said}" if said != "" else ""), flush=True)
    return good


def skip(why):
    count["skipped"] += 1
    print(f"SKIP web: {why}", flush=True)


def native(*arguments, pictures):
    """What cnn.h says here; in 4 lanes without fused multiply-adds, as WebAssembly has them."""
    return subprocess.run(["build/web/native", WEIGHTS, *map(str, arguments)], input=pictures, capture_output=True, check=True,
                          env={**os.environ, "CNN_ISA": "baseline"}).stdout.decode()


def mnist(kind):
    for name in glob.glob(os.path.join(os.environ.get("DATA") or "nowhere", f"t10k-{kind}-idx?-ubyte*")):
        with (gzip.open if name.endswith(".gz") else open)(name, "rb") as file:
            return file.read()[16 if kind == "images" else 8:]
    return None


def numbers(text):
    return [float(n) for n in re.findall(r"-?\d+(?:\.\d+)?", text.replace("−", "-"))]


def near(one, other):
    """The same numbers, but for the last digit that is printed"""
    return len(one) == len(other) and all(abs(a - b) <= 1.5e-4 for a, b in zip(one, other))


def text_of(browser, selector):
    return browser.run(f"document.querySelector({json.dumps(selector)}).innerText")


def begin(browser, address=""):
    browser.open("about:blank")
    browser.open(PAGE + address)
    return ok(f"{browser.name} opens the page {address}", browser.wait("document.body && document.body.dataset.ready !== undefined"),
              browser.run("document.getElementById('failure').textContent"))


def box(browser, selector):
    browser.run(f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'center', inline: 'center', behavior: 'instant'}})")
    return browser.run(f"(({{x, y, width, height}}) => [x, y, width, height])(document.querySelector({json.dumps(selector)}).getBoundingClientRect())")


def point_of(browser, layer, channel, row, column):
    """Where a value is on the screen"""
    selector = f"[id='map-{layer}']"
    x, y, _, _ = box(browser, selector)
    dx, dy = browser.run(f"""(() => {{
        const shape = layers.find(one => one.name === '{layer}').shape, {{ across, size, gap }} = arrangement(shape);
        return [{channel} % across * (shape[2] * size + gap) + ({column} + 0.5) * size,
                Math.floor({channel} / across) * (shape[1] * size + gap) + ({row} + 0.5) * size];
    }})()""")
    return x + dx, y + dy


def draw(browser, kind):
    browser.run("document.getElementById('clear').click()")
    x, y, w, h = box(browser, "#paper")
    seven = [(0.28, 0.22), (0.5, 0.22), (0.72, 0.22), (0.64, 0.4), (0.56, 0.6), (0.48, 0.8)]
    browser.pointer([(x + w * a, y + h * b) for a, b in seven], kind)
    ok(f"{browser.name}: a stroke by {kind} is ink", browser.wait("picture.reduce((sum, byte) => sum + byte, 0) > 5000", 10))
    ok(f"{browser.name}: the drawn 7 is read", text_of(browser, "#answer") == "7", text_of(browser, "#answer"))
    shares = browser.run("Array.from(probabilities())")
    ok(f"{browser.name}: ten probabilities add up to 1", len(shares) == 10 and abs(sum(shares) - 1) < 1e-5, shares)


def check_pixels(browser):
    """Click a value; the page's numbers are cnn_explain's, for the picture that the page has made of the stroke."""
    picture = bytes(browser.run("Array.from(picture)"))
    for layer, k, j, i in [("input_layer.0", 2, 9, 14), ("input_layer.0", 5, 0, 27), ("input_layer.1", 3, 12, 12), ("input_layer.2", 4, 6, 7),
                           ("hidden_layer_1.0", 15, 13, 0), ("hidden_layer_2.0", 77, 3, 4), ("hidden_layer_2.2", 2500, 0, 0),
                           ("hidden_layer_3.0", 40, 0, 0), ("hidden_layer_3.1", 41, 0, 0), ("classifier", 7, 0, 0)]:
        where = f"{browser.name}: {layer} ({k}, {j}, {i})"
        browser.pointer([point_of(browser, layer, k, j, i)])
        chosen = browser.run("[layers[chosen.layer].name, chosen.channel, chosen.row, chosen.column]")
        if not ok(f"{where}: the click chooses it", chosen == [layer, k, j, i], chosen):
            continue
        below = {"input_layer.1": "input_layer.0", "hidden_layer_3.1": "hidden_layer_3.0"}.get(layer, layer)
        should = native("explain", below, k, j, i, pictures=picture)
        text = browser.run("document.getElementById('pixel-text').textContent")
        ok(f"{where}: the text is cnn_explain's", near(numbers(text)[:len(numbers(should))], numbers(should)), text[:200] + " | " + should[:200])
        drawn = browser.run("Array.from(document.querySelectorAll('#pixel .channel'), one => Array.from(one.querySelectorAll('table'), table => table.innerText))")
        windows = re.split(r"  c = \d+\n", should)[1:] or [should]
        for channel, window in zip(drawn, windows):
            rows = [line for line in window.splitlines() if line.startswith("    ") and "sum" not in line]
            if len(channel) == 3:                       # a window and a kernel, and their products
                pairs = [numbers(pair) for row in rows for pair in re.findall(r"\[? *-?[\d.]+\]? *\* *-?[\d.]+", row)]
                z, u, p = [numbers(table.split("\n", 1)[1]) for table in channel]
                ok(f"{where}: the window", near(z, [a for a, _ in pairs]))
                ok(f"{where}: the kernel", near(u, [b for _, b in pairs]))
                ok(f"{where}: the products", near(p, [a * b for a, b in pairs]))
        if len(drawn) not in (0, len(windows)):
            ok(f"{where}: {len(windows)} channels are drawn", False, len(drawn))
        padded = browser.run("document.querySelectorAll('#pixel .padded').length")
        ok(f"{where}: what lies beyond the border is marked", padded == 2 * should.count("[") - 2 * should.count("[ ]"), padded)
        results = re.findall(r"= (-?[\d.]+)(?:\n| +\()", should)
        if "linear" in should or "conv2d" in should:
            ok(f"{where}: the sum", any(abs(float(results[-1]) - value) <= 2e-6 for value in numbers(text_of(browser, "#pixel .terms"))),
               text_of(browser, "#pixel .terms"))
    browser.pointer([point_of(browser, "input_layer.0", 2, 9, 14)])
    browser.keys(["\ue014", "\ue015", "\ue00f"])        # right, down, page down
    moved = browser.run("[chosen.channel, chosen.row, chosen.column]")
    ok(f"{browser.name}: keys move the pixel", moved == [3, 10, 15], moved)


def check_logits(browser, images, labels):
    of_page = browser.run(f"""(() => {{
        const text = atob('{base64.b64encode(images).decode()}'), logits = [];
        for (let n = 0; n < text.length / 784; n++) {{
            see(LESSON, Uint8Array.from(text.slice(784 * n, 784 * n + 784), one => one.charCodeAt(0)));
            logits.push(Array.from(valuesOf(LESSON, 'classifier')));
        }}
        return logits;
    }})()""")
    here = [[float(word) for word in line.split()] for line in native("logits", pictures=images).splitlines()]
    worst = max(abs(a - b) for one, two in zip(of_page, here) for a, b in zip(one, two))
    right = sum(one.index(max(one)) == label for one, label in zip(of_page, labels))
    print(f"web: {browser.name}: logits of {len(here)} digits differ from the native ones by {worst:.2g} at most; {right} are read", flush=True)
    ok(f"{browser.name}: logits agree with the native ones to 1e-5", len(of_page) == len(here) == len(labels) and worst <= 1e-5, worst)


def check_centring(browser, images, labels):
    """MNIST's digits, half as large and away from the middle, as somebody might draw them"""
    answers = browser.run(f"""(() => {{
        const text = atob('{base64.b64encode(images).decode()}'), answers = [];
        const context = Object.assign(document.createElement('canvas'), {{ width: PAPER, height: PAPER }}).getContext('2d', {{ willReadFrequently: true }});
        for (let n = 0; n < text.length / 784; n++) {{
            context.fillStyle = 'black';
            context.fillRect(0, 0, PAPER, PAPER);
            context.drawImage(pictureCanvas(Uint8Array.from(text.slice(784 * n, 784 * n + 784), one => one.charCodeAt(0)), 28),
                n % 5 * 25, n % 7 * 15, 170, 170);
            see(LESSON, pictureOf(context));
            const logits = Array.from(valuesOf(LESSON, 'classifier'));
            answers.push(logits.indexOf(Math.max(...logits)));
        }}
        return answers;
    }})()""")
    right = sum(a == b for a, b in zip(answers, labels))
    print(f"web: {browser.name}: {right} of {len(labels)} digits are read through the page's own centring", flush=True)
    ok(f"{browser.name}: the page's centring: at least 95 of 100", right >= 95 and len(answers) == 100, right)


def check_equation(browser):
    browser.run("document.getElementById('tab-equation').click()")

    def choose(id, value):
        browser.run(f"(() => {{ const e = document.getElementById('{id}'); e.value = '{value}'; e.dispatchEvent(new Event('change')); }})()")

    for source, preset, size, mode, stride, dilation in [("digit", "vertical", 3, "zeros", 1, 1), ("shapes", "blur", 5, "replicate", 2, 1),
                                                         ("shapes", "sharpen", 3, "reflect", 1, 2), ("digit", "horizontal", 5, "circular", 3, 1),
                                                         ("shapes", "identity", 3, "none", 1, 3)]:
        for id, value in (("source", source), ("size", size), ("preset", preset), ("mode", mode), ("stride", stride), ("dilation", dilation)):
            choose(id, value)
        state = browser.run("({ image: Array.from(filter.image), w: filter.width, h: filter.height, kernel: filter.kernel, high: filter.high, wide: filter.wide, values: Array.from(valuesOf(FILTER, '0')) })")
        w, h, pad = state["w"], state["h"], 0 if mode == "none" else size // 2 * dilation

        def border(at, length):                          # where the padding takes its value; None: 0
            if 0 <= at < length:
                return at
            return {"replicate": min(max(at, 0), length - 1), "circular": at % length,
                    "reflect": -at if at < 0 else 2 * length - 2 - at}.get(mode)

        def value(j, i):                                 # (6.2)
            total = 0
            for y in range(size):
                for x in range(size):
                    row, column = border(j * stride + y * dilation - pad, h), border(i * stride + x * dilation - pad, w)
                    if row is not None and column is not None:
                        total += state["image"][row * w + column] / 255 * state["kernel"][y * size + x]
            return total
        high, wide = [(side + 2 * pad - dilation * (size - 1) - 1) // stride + 1 for side in (h, w)]
        good = (high, wide) == (state["high"], state["wide"]) and len(state["values"]) == high * wide
        ok(f"{browser.name}: {preset} {mode} stride {stride} dilation {dilation}: the feature map is (6.2)", good and all(
            abs(value(j, i) - state["values"][j * wide + i]) < 1e-4 for j in range(high) for i in range(wide)))
    choose("mode", "zeros"), choose("dilation", 1), choose("stride", 1), choose("source", "digit")
    before = browser.run("[filter.row, filter.column]")
    x, y, w, h = box(browser, "#result")
    browser.pointer([(x + w * 0.8, y + h * 0.3)])
    ok(f"{browser.name}: the window follows the pointer", browser.run("[filter.row, filter.column]") not in (before, None))
    size = browser.run("""new Promise(done => {                 // a file of one's own
        const canvas = document.createElement('canvas'), input = document.getElementById('file'), files = new DataTransfer();
        [canvas.width, canvas.height] = [300, 200];
        canvas.getContext('2d').fillRect(0, 0, 150, 200);
        canvas.toBlob(blob => {
            files.items.add(new File([blob], 'own.png', { type: 'image/png' }));
            input.files = files.files;
            input.dispatchEvent(new Event('change'));
            setTimeout(() => done([filter.source, filter.width, filter.height]), 1500);
        });
    })""")
    ok(f"{browser.name}: a file of one's own is shown", size == ["file", 96, 64], size)
    browser.run("(() => { const e = document.querySelector('#kernel input'); e.value = '7'; e.dispatchEvent(new Event('input')); })()")
    ok(f"{browser.name}: an edited weight is used", browser.run("[filter.kernel[0], valuesOf(FILTER, '0.weight')[0], document.getElementById('preset').value]") == [7, 7, "own"])


def check_learning(browser, every_bug):
    browser.run("document.getElementById('tab-learning').click()")
    ok(f"{browser.name}: without a bug the check finds nothing", browser.wait("training.check") and browser.run("training.check.failed") == 0,
       browser.run("training.check.rows.filter(row => row.wrong)"))
    for _ in range(50):
        browser.run("document.getElementById('step').click()")
    losses = browser.run("training.losses")
    first, last = sum(losses[:10]) / 10, sum(losses[-10:]) / 10
    print(f"web: {browser.name}: 50 steps: loss {first:.3f} (first ten) to {last:.3f} (last ten), accuracy {text_of(browser, '#accuracy')}", flush=True)
    ok(f"{browser.name}: 50 steps lower the loss", len(losses) == 50 and last < 0.8 * first, losses)
    browser.run("document.getElementById('run').click()")
    ok(f"{browser.name}: Run goes on by itself", browser.wait("training.steps > 55", 60))
    browser.run("document.getElementById('run').click()")
    steps = browser.run("training.steps")
    ok(f"{browser.name}: Pause stops it", browser.run("new Promise(done => setTimeout(() => done(training.steps), 400))") == steps)
    for bug, wrong in enumerate([[], ["bias"], ["input"], ["dy"], ["input", "weight"], ["step"]] if every_bug else []):
        browser.run(f"document.querySelector('[name=bug][value=\"{bug}\"]').click()")
        rows = browser.run("training.check.rows.filter(row => row.wrong).map(row => row.tensor)")
        ok(f"{browser.name}: bug {bug}: the check finds it, where it is", sorted(set(rows)) == wrong, rows)
        ok(f"{browser.name}: bug {bug}: the verdict", text_of(browser, "#verdict").startswith("✗" if bug else "✓"), text_of(browser, "#verdict"))
        if bug:
            browser.run("(() => { resetLearning(); for (let i = 0; i < 60; i++) learnStep(); })()")
            print(f"web: {browser.name}: bug {bug}: after 60 steps accuracy {text_of(browser, '#accuracy')}, check: {text_of(browser, '#verdict')}", flush=True)
    browser.run("document.querySelector('[name=bug][value=\"0\"]').click()")
    browser.run("document.getElementById('reset').click()")
    ok(f"{browser.name}: Reset begins again", browser.run("training.steps") == 0)


def check_address(browser):
    begin(browser, "#part=network&lang=ko&digit=5&layer=hidden_layer_1.0&at=3,4,5")
    state = browser.run("[shownDigit, layers[chosen.layer].name, chosen.channel, chosen.row, chosen.column, language, document.documentElement.lang]")
    ok(f"{browser.name}: the address holds the state", state == [5, "hidden_layer_1.0", 3, 4, 5, "ko", "ko"], state)
    begin(browser, "#part=equation&kernel=0,1,0,1,-4,1,0,1,0&conv=shapes,reflect,2,1,3,4&lang=en")
    state = browser.run("[filter.kernel.join(), filter.source, filter.mode, filter.stride, filter.row, filter.column, shownPart]")
    ok(f"{browser.name}: the address holds the kernel", state == ["0,1,0,1,-4,1,0,1,0", "shapes", "reflect", 2, 3, 4, "equation"], state)
    begin(browser, "#lang=en")
    draw(browser, "mouse")
    drawn, address = browser.run("Array.from(picture)"), browser.run("location.hash")
    begin(browser, address)
    ok(f"{browser.name}: the address holds the drawing", browser.run("Array.from(picture)") == drawn, address[:100])
    begin(browser, "#part=nothing&layer=..&at=9,9,9,x&kernel=1,2&conv=,,9,9,-1,1e9&digit=99&ink=zz.!&bug=7&lang=xx")     # a damaged one
    browser.run("document.getElementById('tab-network').click()")


def check_words(browser):
    begin(browser, "#lang=en")
    ok("every word is there in both languages", browser.run("String(Object.keys(words.en).sort()) === String(Object.keys(words.ko).sort())"))
    used = set(re.findall(r'(?:data-word|data-label)="(\w+)"|word\("(\w+)"\)', open("lenet5.html", encoding="utf-8").read()))
    missing = [word for pair in used for word in pair if word and not browser.run(f"'{word}' in words.en")]
    ok("every word that is used is known", not missing, missing)
    browser.run("document.querySelector('[data-language=ko]').click()")
    ok("Korean: the language changes", browser.run("document.querySelector('[data-word=equationTab]').textContent") == "컨볼루션 식")


def find_axe():
    spec = importlib.util.find_spec("axe_core_python")
    return glob.glob(os.path.join(os.path.dirname(spec.origin), "axe.min.js")) if spec else []


def check_axe(browser, where):
    axe = find_axe()
    if not axe:
        return skip(f"axe's rules, {where}: axe-core-python is not installed (pip install axe-core-python)")
    browser.ask("POST", f"{browser.session}/execute/sync", {"script": open(axe[0], encoding="utf-8").read(), "args": []})
    for part in ("network", "equation", "learning"):
        browser.run(f"document.getElementById('tab-{part}').click()")
        found = browser.run("axe.run().then(result => result.violations.map(one => one.id + ': ' + one.nodes.slice(0, 3).map(node => node.html.slice(0, 90)).join(' | ')))")
        ok(f"axe's rules, {where}, {part}", found == [], found)


def check_width(browser, where):
    for part in ("network", "equation", "learning"):
        browser.run(f"document.getElementById('tab-{part}').click()")
        wide, room = browser.run("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        ok(f"{where}, {part}: nothing hangs over the side", wide <= room, (wide, room))


def check_console(browser):
    said = browser.console()
    ok(f"{browser.name}: the console is empty", not said, said)


def main():
    size = os.path.getsize("lenet5.html")
    print(f"web: lenet5.html has {size} bytes")
    ok("the page has less than 2 MB", size < 2_000_000, size)
    page = open("lenet5.html", encoding="utf-8").read()
    ok("the page names no other address", not re.search(r"(?:src|href)=.?(?:https?:)?//|https?://", page))
    images, labels = mnist("images"), mnist("labels")
    if images is None:
        skip("100 digits of MNIST: DATA names no folder with t10k-images-idx3-ubyte")
    if shutil.which("chromedriver"):
        chromium = Chromium()
        try:
            times = []
            for _ in range(5):
                begin(chromium, "#lang=en")
                times.append(chromium.run("+document.body.dataset.ready"))
            print(f"web: Chromium shows the page after {min(times)} ms (five times: {times})", flush=True)
            if min(times) >= 1000 and os.getloadavg()[0] > os.cpu_count():
                skip(f"the page within a second: the machine is busy (load {os.getloadavg()[0]:.0f}, {os.cpu_count()} processors)")
            else:
                ok("the page is there within a second", min(times) < 1000, times)
            draw(chromium, "mouse"), draw(chromium, "touch")
            check_pixels(chromium)
            if images:
                check_logits(chromium, images[:78400], list(labels[:100]))
                check_centring(chromium, images[78400:156800], list(labels[100:200]))
            check_equation(chromium)
            check_learning(chromium, every_bug=True)
            check_address(chromium)
            check_words(chromium)
            check_width(chromium, "1400 pixels")
            begin(chromium, "#lang=en"), check_axe(chromium, "light")
            begin(chromium, "#lang=ko"), check_axe(chromium, "Korean")
            chromium.command("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]})
            begin(chromium, "#lang=en"), check_axe(chromium, "dark")
            chromium.command("Emulation.setDeviceMetricsOverride", {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True})
            begin(chromium, "#lang=ko"), check_width(chromium, "a phone"), check_axe(chromium, "a phone")
            check_console(chromium)
        finally:
            chromium.close()
    else:
        skip("Chromium: chromedriver is not installed (apt install chromium-driver)")
    if shutil.which("firefox-esr"):
        firefox = Firefox()
        try:
            begin(firefox, "#lang=en")
            draw(firefox, "mouse")
            check_pixels(firefox)
            if images:
                check_logits(firefox, images[:78400], list(labels[:100]))
            check_equation(firefox)
            check_learning(firefox, every_bug=False)
            check_console(firefox)
        finally:
            firefox.close()
    else:
        skip("Firefox: firefox-esr is not installed")


main()
print(f"web: {count['passed']} passed, {count['failed']} failed" + (f", {count['skipped']} skipped" if count["skipped"] else ""))
sys.exit(count["failed"] > 0)
