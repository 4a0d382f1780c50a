"""browsers.py - two browsers, driven by their own protocols and Python's standard library alone: Chromium by chromedriver
(WebDriver), Firefox by its remote debugging port (WebDriver BiDi, over a WebSocket of thirty lines)."""
import base64, http.client, json, os, shutil, socket, struct, subprocess, tempfile, time


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for_port(port, seconds=60):
    end = time.time() + seconds
    while time.time() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"nothing listens on port {port} after {seconds} s")


class Browser:
    """What the two have in common: run() evaluates an expression in the page, pointer() presses, moves and releases."""
    def wait(self, condition, seconds=120):
        end = time.time() + seconds
        while time.time() < end:
            if self.run(condition):
                return True
            time.sleep(0.1)
        return False

    def close(self):
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class Chromium(Browser):
    name = "Chromium"

    def __init__(self, width=1400, height=1000, dark=False, scale=1):
        self.folder = tempfile.mkdtemp()
        self.port = free_port()
        self.processes = [subprocess.Popen(["chromedriver", f"--port={self.port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)]
        wait_for_port(self.port)
        arguments = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", f"--window-size={width},{height}", "--lang=en-US",
                     f"--user-data-dir={self.folder}", f"--force-device-scale-factor={scale}", "--disable-background-networking",
                     # no name is resolved: whatever the page would load from elsewhere fails
                     "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
        if dark:
            arguments.append("--force-dark-mode")
        answer = self.ask("POST", "/session", {"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": {"args": arguments}, "goog:loggingPrefs": {"browser": "ALL"}}}})
        self.session = "/session/" + answer["sessionId"]
        self.ask("POST", f"{self.session}/timeouts", {"script": 600000, "pageLoad": 600000})
        self.command("Network.enable", {})
        self.command("Network.emulateNetworkConditions", {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0})
        if dark:
            self.command("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]})

    def ask(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        connection.request(method, path, json.dumps(body or {}) if method == "POST" else None, {"Content-Type": "application/json"})
        value = json.loads(connection.getresponse().read())["value"]
        if isinstance(value, dict) and "error" in value:
            raise RuntimeError(f"{value['error']}: {value['message'][:400]}")
        return value

    def command(self, name, parameters):                # of the DevTools protocol
        return self.ask("POST", f"{self.session}/goog/cdp/execute", {"cmd": name, "params": parameters})

    def open(self, url):
        self.ask("POST", f"{self.session}/url", {"url": url})

    def run(self, expression):
        return self.ask("POST", f"{self.session}/execute/async", {"args": [], "script":
            "const done = arguments[arguments.length - 1];"
            f"Promise.resolve().then(() => ({expression})).then(done, error => done('error: ' + error))"})

    def pointer(self, points, kind="mouse"):
        (x, y), *others = points
        steps = [{"type": "pointerMove", "duration": 0, "x": round(x), "y": round(y)}, {"type": "pointerDown", "button": 0}]
        steps += [{"type": "pointerMove", "duration": 20, "x": round(x), "y": round(y)} for x, y in others]
        self.ask("POST", f"{self.session}/actions", {"actions": [
            {"type": "pointer", "id": kind, "parameters": {"pointerType": kind}, "actions": steps + [{"type": "pointerUp", "button": 0}]}]})

    def keys(self, keys):
        self.ask("POST", f"{self.session}/actions", {"actions": [{"type": "key", "id": "keys", "actions": [
            {"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]}]})

    def console(self):
        return [entry["message"] for entry in self.ask("POST", f"{self.session}/se/log", {"type": "browser"})]

    def screenshot(self, path):
        with open(path, "wb") as file:
            file.write(base64.b64decode(self.ask("GET", f"{self.session}/screenshot")))

    def close(self):
        try:
            self.ask("DELETE", self.session)
        except (OSError, RuntimeError):
            pass
        super().close()


class Firefox(Browser):
    name = "Firefox"

    def __init__(self, width=1400, height=1000):
        self.folder = tempfile.mkdtemp()
        with open(os.path.join(self.folder, "user.js"), "w") as file:      # a profile that asks nothing and stays offline
            for key, value in {"browser.shell.checkDefaultBrowser": False, "datareporting.policy.dataSubmissionEnabled": False,
                               "browser.startup.page": 0, "network.proxy.type": 1, "network.proxy.http": "127.0.0.1",
                               "network.proxy.http_port": 9, "network.proxy.ssl": "127.0.0.1", "network.proxy.ssl_port": 9,
                               "network.proxy.no_proxies_on": "", "toolkit.telemetry.enabled": False,
                               "app.update.auto": False, "intl.accept_languages": "en-US"}.items():
                file.write(f"user_pref({json.dumps(key)}, {json.dumps(value)});\n")
        port = free_port()
        self.processes = [subprocess.Popen(
            ["firefox-esr", "--headless", "--no-remote", "--profile", self.folder, f"--remote-debugging-port={port}",
             "--width", str(width), "--height", str(height)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": self.folder, "MOZ_HEADLESS_WIDTH": str(width), "MOZ_HEADLESS_HEIGHT": str(height)})]
        wait_for_port(port)
        self.socket = socket.create_connection(("127.0.0.1", port), 300)
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall((f"GET /session HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                             f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n").encode())
        self.buffer = b""
        while b"\r\n\r\n" not in self.buffer:
            self.buffer += self.socket.recv(4096)
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        if b" 101 " not in head:
            raise RuntimeError("Firefox refuses the WebSocket: " + head.decode(errors="replace"))
        self.number, self.logged = 0, []
        self.ask("session.new", {"capabilities": {}})
        self.ask("session.subscribe", {"events": ["log.entryAdded"]})
        self.context = self.ask("browsingContext.getTree", {})["contexts"][0]["context"]

    def read(self, count):
        while len(self.buffer) < count:
            more = self.socket.recv(1 << 16)
            if not more:
                raise RuntimeError("Firefox has closed the WebSocket")
            self.buffer += more
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def receive(self):
        text = b""
        while True:
            first, second = self.read(2)
            length = second & 127
            if length > 125:
                length = int.from_bytes(self.read(2 if length == 126 else 8), "big")
            data = self.read(length)
            if first & 15 in (0, 1):
                text += data
                if first & 128:
                    return json.loads(text)

    def ask(self, method, parameters):
        self.number += 1
        data, mask = json.dumps({"id": self.number, "method": method, "params": parameters}).encode(), os.urandom(4)
        size = len(data)                                # in as few bytes as it needs, or Firefox hangs up
        length = struct.pack("!BB", 0x81, 0x80 | size) if size < 126 else struct.pack("!BBH", 0x81, 0x80 | 126, size) \
            if size < 1 << 16 else struct.pack("!BBQ", 0x81, 0x80 | 127, size)
        self.socket.sendall(length + mask + bytes(byte ^ mask[i & 3] for i, byte in enumerate(data)))
        while True:
            answer = self.receive()
            if answer.get("method") == "log.entryAdded":
                self.logged.append(answer["params"].get("text") or "(no text)")
            if answer.get("id") == self.number:
                if answer["type"] == "error":
                    raise RuntimeError(f"{method}: {answer['error']}: {answer['message'][:400]}")
                return answer["result"]

    def open(self, url):
        self.ask("browsingContext.navigate", {"context": self.context, "url": url, "wait": "complete"})

    def run(self, expression):                          # by way of JSON: BiDi has a notation of its own for values
        answer = self.ask("script.evaluate", {"expression": f"Promise.resolve().then(() => ({expression})).then(value => JSON.stringify(value ?? null), error => JSON.stringify('error: ' + error))",
                                              "target": {"context": self.context}, "awaitPromise": True})
        if answer["type"] != "success":
            raise RuntimeError(answer["exceptionDetails"]["text"])
        return json.loads(answer["result"]["value"])

    def pointer(self, points, kind="mouse"):
        (x, y), *others = points
        steps = [{"type": "pointerMove", "x": round(x), "y": round(y)}, {"type": "pointerDown", "button": 0}]
        steps += [{"type": "pointerMove", "duration": 20, "x": round(x), "y": round(y)} for x, y in others]
        self.ask("input.performActions", {"context": self.context, "actions": [
            {"type": "pointer", "id": kind, "parameters": {"pointerType": kind}, "actions": steps + [{"type": "pointerUp", "button": 0}]}]})

    def keys(self, keys):
        self.ask("input.performActions", {"context": self.context, "actions": [{"type": "key", "id": "keys", "actions": [
            {"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]}]})

    def console(self):
        return self.logged
