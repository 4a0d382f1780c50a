#!/usr/bin/env python3
"""mutants.py - would the tests notice a bug in cnn.h? Plants single changes at random places of it and runs the tests on each.

    make mutants                                 300 changes, drawn by seed 1
    make mutants MUTANTS='--seed 7 --count 50 --section simd'            and --function cnn__inflate,cnn__crc32
    make mutants MUTANTS='--list'                what would be planted; nothing is run
    make mutants MUTANTS='--only 1a2b3c4d,...'   these again, by the ids that a run has printed

A change is one of: an operator, a constant, an index, a bound of a comparison, a condition negated, a statement left out,
two arguments swapped. Places are code that this machine compiles: no declarations, strings, comments or preprocessor lines.
A change that does not compile is drawn again. Each one goes into a copy of the repository, built by its Makefile: by clang
without optimization, where there is clang, as that takes a sixth of the time. The test programs that run the changed line
(gcov says which) run on it in their short form until one fails or leaves memory that is not freed, the one that has failed
most in this section first. What passes them runs under the sanitizers in five of them, and then, but for --short, in the
long form and through the scripts.
A test that takes too long has noticed. equivalent.txt names changes that cannot be noticed, and functions that only another
machine runs, each with its reason."""
import argparse, bisect, concurrent.futures, glob, hashlib, json, os, queue, random, re, resource, shutil, signal, subprocess, sys, threading, time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
WORK = os.environ.get("MUTANTS_WORK") or os.path.join(ROOT, "build", "mutants")
CC = "clang" if shutil.which("clang") else os.environ.get("CC", "cc")
# warnings that every build of this project takes for errors, or should; -w would silence them
CFLAGS = "-Werror=format -Werror=memset-transposed-args -Werror=int-conversion -Werror=incompatible-pointer-types -Werror=implicit-function-declaration"
LEAK, SANITIZE = "-O0 -fsanitize=leak", "-O0 -fsanitize=address,undefined -fno-sanitize-recover=all"


# ---- reading C ----

TOKEN = re.compile(r"""(?P<skip>\s+|/\*.*?\*/|//[^\n]*)|(?P<pp>^[ \t]*\#(?:\\\n|/\*.*?\*/|[^\n])*)|(?P<text>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')
    |(?P<number>0[xX][0-9a-fA-F]+[uUlL]*|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?[fFuUlL]*)|(?P<name>[A-Za-z_]\w*)
    |(?P<op><<=|>>=|\.\.\.|\+\+|--|->|&&|\|\||<<|>>|<=|>=|==|!=|[-+*/%&|^]=|[-+*/%&|^!~<>=?:;,.(){}\[\]])|(?P<other>.)""",
                   re.S | re.M | re.X)
TYPES = set("int float double char void const unsigned signed long short struct enum union static extern inline register volatile "
            "size_t ptrdiff_t FILE va_list time_t ssize_t mode_t clock_t wchar_t CNN__INLINE CNN__VECTOR".split())
EITHER_WAY = set("cnn__smaller cnn__larger cnn__mul cnn__alloc fmax fmin".split())            # their arguments may be swapped
WORDS = set("if while for switch return sizeof do else case goto break continue default".split())
OTHERS = {"+": ["-"], "-": ["+"], "*": ["/"], "/": ["*"], "%": ["/"], "<": ["<=", ">"], "<=": ["<", ">"], ">": [">=", "<"],
          ">=": [">", "<"], "==": ["!="], "!=": ["=="], "&&": ["||"], "||": ["&&"], "&": ["|"], "|": ["&"], "^": ["|"],
          "<<": [">>"], ">>": ["<<"], "+=": ["-="], "-=": ["+="], "*=": ["/="], "/=": ["*="], "|=": ["&="], "&=": ["|="],
          "^=": ["|="], "<<=": [">>="], ">>=": ["<<="], "++": ["--"], "--": ["++"]}


class Token:
    def __init__(self, kind, text, at):
        self.kind, self.text, self.at, self.end = kind, text, at, at + len(text)


def tokens_of(source):
    found = (Token(m.lastgroup, m.group(), m.start()) for m in TOKEN.finditer(source))
    return [t for t in found if t.kind not in ("skip", "pp")]


def compiled_lines():
    """The numbers of the lines of cnn.h that the compiler sees here, by its own preprocessor."""
    program = '#if defined(__has_include)\n#if __has_include(<stb_image.h>)\n#include <stb_image.h>\n#endif\n#endif\n' \
              '#define CNN_IMPLEMENTATION\n#include "cnn.h"\n'
    stb = subprocess.run(["pkg-config", "--cflags", "stb"], capture_output=True, text=True).stdout.split()
    command = [CC, "-std=c99", "-O1", *stb, "-I", ROOT, "-E", "-x", "c", "-"]
    lines, at, here = set(), 0, False
    for line in subprocess.run(command, input=program, capture_output=True, text=True, check=True).stdout.split("\n"):
        marker = re.match(r'# (\d+) "(.*?)"', line)
        if marker:
            at, here = int(marker[1]), os.path.basename(marker[2]) == "cnn.h"
        else:
            if here and line.strip(): lines.add(at)
            at += 1
    return lines


# if (a < b) a = b;  and  a < b ? a : b  are the same with <=
CLAMPS = [re.compile(r"if \(([^;]+?) [<>]=? ([^;]+?)\) \1 = \2;"), re.compile(r"([\w.>-]+) [<>]=? ([\w.>-]+) \? (?:\1 : \2|\2 : \1)\b")]


class Mutant:
    def __init__(self, source, line, kind, at, end, new, section, function):
        self.function = function
        self.line, self.kind, self.at, self.end, self.new, self.section = line, kind, at, end, new, section
        self.last = line + source.count("\n", at, end)
        begin, stop = source.rfind("\n", 0, at) + 1, source.find("\n", end)
        self.before = source[begin:stop].strip()
        self.after = (source[begin:at] + new + source[end:stop]).strip()
        self.named = function, self.before, self.after
        self.id, self.noticed_by = "", None

    def plant(self, source): return source[:self.at] + self.new + source[self.end:]


def number_instead(text, draw):
    digits = re.match(r"(0[xX][0-9a-fA-F]+|[\d.]+(?:[eE][+-]?\d+)?)(.*)", text)
    value, ending = digits[1], digits[2]
    if value.lower().startswith("0x"): return hex(int(value, 16) ^ 1 << draw.randrange(4)) + ending
    if re.fullmatch(r"\d+", value): return str(int(value) + (1 if value == "0" else draw.choice((-1, 1)))) + ending
    return repr(float(value) * draw.choice((0.5, 1.5)) or 0.5) + ending


def places_of(source):
    """Every change that could be planted: one a place."""
    tokens, seen, draw = tokens_of(source), compiled_lines(), random.Random(0)
    types = TYPES | set(re.findall(r"\}\s*(\w+);", source)) | set(re.findall(r"typedef [^;{]*?\b(\w+);", source)) \
        | set(re.findall(r"\b(?:struct|enum) (\w+)", source)) | set(re.findall(r"\bu?int\d+_t\b|\buintptr_t\b", source))
    starts = [0] + [m.end() for m in re.finditer("\n", source)]
    sections = [(m.start(), m[1]) for m in re.finditer(r"^   >>(\w+)", source, re.M)]
    line_of = lambda at: bisect.bisect_right(starts, at)
    section_of = lambda at: next((name for start, name in reversed(sections) if start <= at), "")
    partner, open_ = {}, []
    for i, t in enumerate(tokens):
        if t.text in ("(", "["): open_.append(i)
        elif t.text in (")", "]") and open_: partner[open_.pop()] = i
    back = {close: begin for begin, close in partner.items()}
    found, depth, inside, declaring, value, parens, function = [], 0, False, False, False, 0, ""

    def is_type(k): return tokens[k].kind == "name" and tokens[k].text in types

    def put(kind, at, end, new):
        first, last = line_of(at), line_of(end - 1)
        if all(n in seen for n in range(first, last + 1)): found.append(Mutant(source, first, kind, at, end, new, section_of(at), function))

    for i, t in enumerate(tokens):
        before, after = tokens[i - 1].text if i else "", tokens[i + 1].text if i + 1 < len(tokens) else ""
        if t.text == "{":
            if not inside:
                inside = before == ")"
                if not inside: continue
                depth, head = 0, source.rfind("\n", 0, t.at - 1) + 1
                while source[head] in " {": head = source.rfind("\n", 0, head - 1) + 1
                names = re.findall(r"\b(cnn_\w+)\)?\(", source[head:t.at])
                function = names[0] if names else ""
            depth += 1
        elif t.text == "}" and inside:
            depth -= 1
            if depth == 0 or t.at in starts: inside = False
        if not inside: continue
        new_statement = before in ("{", "}", ";", "else", "do") or (before == ":" and declaring is None) \
            or (before == ")" and back.get(i - 1) is not None and tokens[back[i - 1] - 1].text in ("if", "while", "for", "switch"))
        if before == ";" and parens > 0: new_statement = False
        if new_statement and t.text not in ("{", "}", ";"):
            declaring, value, parens = is_type(i) and after != "(" or t.text in ("static", "const"), False, 0
            if not declaring and t.kind in ("name", "op") and t.text not in WORDS and (t.kind == "name" or t.text in ("*", "++", "--")):
                k, level = i, 0
                while tokens[k].text != ";" or level:
                    level += (tokens[k].text in ("(", "[", "{")) - (tokens[k].text in (")", "]", "}"))
                    k += 1
                    if level < 0 or k - i > 200: break
                if level == 0 and tokens[k].text == ";" and "va_end" != t.text: put("left out", t.at, tokens[k].at, "")
            if t.text == "continue": put("left out", t.at, t.end, "")
        if t.text in ("(", "["): parens += 1
        elif t.text in (")", "]"): parens -= 1
        if declaring:
            if t.text == "=" and parens == 0: value = True; continue
            if t.text == "," and parens == 0: value = False
            if t.text == ";" and parens == 0: declaring = False
            if not value: continue
        previous = tokens[i - 1]
        operand = (previous.kind in ("name", "number") and before not in WORDS and not is_type(i - 1)) or before in (")", "]")
        if before == ")" and back.get(i - 1) is not None and is_type(back[i - 1] + 1): operand = False      # a cast
        if t.kind == "op" and t.text in OTHERS:
            if t.text in ("+", "-", "*", "&") and not operand: pass
            elif t.text == "*" and after in (")", "*", "const"): pass
            else:
                begin, stop = source.rfind("\n", 0, t.at) + 1, source.find("\n", t.at)
                clamps = any(m.start() <= t.at - begin < m.end() for c in CLAMPS for m in c.finditer(source[begin:stop]))
                others = OTHERS[t.text][1:] if clamps and len(OTHERS[t.text]) > 1 else OTHERS[t.text]
                put("bound" if t.text in ("<", "<=", ">", ">=") else "operator", t.at, t.end, draw.choice(others))
        elif t.kind == "number": put("constant", t.at, t.end, number_instead(t.text, draw))
        elif t.text == "[" and partner.get(i) and not (tokens[i - 1].kind == "name" and tokens[i - 2].text == "sizeof"):
            end = tokens[partner[i]].at
            put("index", end, end, draw.choice((" + 1", " - 1")))
        elif t.text == "(" and partner.get(i):
            close = partner[i]
            if before in ("if", "while"): put("negated", t.at, tokens[close].end, "(!" + source[t.at:tokens[close].end] + ")")
            elif previous.kind == "name" and before not in WORDS and not is_type(i - 1) and before not in EITHER_WAY | {"CNN__FOR"}:
                cuts, level = [i], 0
                for k in range(i + 1, close):
                    level += (tokens[k].text in ("(", "[", "{")) - (tokens[k].text in (")", "]", "}"))
                    if tokens[k].text == "," and level == 0: cuts.append(k)
                cuts.append(close)
                pairs = [(tokens[a].end, tokens[b].at, tokens[b].end, tokens[c].at) for a, b, c in zip(cuts, cuts[1:], cuts[2:])]
                pairs = [p for p in pairs if source[p[0]:p[1]].strip() != source[p[2]:p[3]].strip()
                         and '"' not in source[p[0]:p[3]]]
                if pairs:
                    a, b, c, d = draw.choice(pairs)
                    put("swapped", a, d, " " * (a != tokens[i].end) + source[c:d].strip() + ", " + source[a:b].strip())
    count = {}
    for m in found:                                        # an id stays when lines move: it is of the text and its number
        key = m.kind + m.function + m.before + "\0" + m.after
        count[key] = count.get(key, 0) + 1
        m.id = hashlib.sha1(f"{key}\0{count[key]}".encode()).hexdigest()[:8]
    return found


def equivalent_ones():
    """equivalent.txt: blocks of  @ function  - line  + line  and a reason; or of  @ function  alone, and a reason."""
    path, known = os.path.join(ROOT, "tests", "mutants", "equivalent.txt"), {}
    if not os.path.exists(path): return known
    for block in open(path).read().split("\n\n"):
        lines = [line for line in block.strip().split("\n") if not line.startswith("#")]
        named = tuple(line[2:].strip() for line in lines if re.match("[-@+] ", line))
        if named: known[named] = " ".join(lines[len(named):])
    return known


# ---- running ----

MEMORY = "allocator_may_return_null=1:hard_rss_limit_mb=4096"           # the sanitizers reserve more than there is


def limits(seconds):                                       # a mutant must not take the machine with it
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, 1 << 30))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def scratch_of(tree):                                      # in memory, where saving does not wait for a disk
    memory = "/dev/shm"
    return os.path.join(memory if os.access(memory, os.W_OK) else tree, f"cnn_mutants_{os.getpid()}_{os.path.basename(tree)}")


def run(command, tree, seconds, variables=(), of_processor=3600):
    """The exit status; None where it took longer. The processor's own time says so, as the machine may have other work."""
    scratch = scratch_of(tree)
    shutil.rmtree(scratch, ignore_errors=True)
    os.makedirs(scratch)
    env = dict(os.environ, TMPDIR=scratch, LSAN_OPTIONS=MEMORY, ASAN_OPTIONS=MEMORY, **dict(variables))
    env.pop("MAKEFLAGS", None); env.pop("MAKELEVEL", None)
    with open(os.path.join(tree, "output"), "wb") as output:
        process = subprocess.Popen(command, cwd=tree, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                   start_new_session=True,
                                   preexec_fn=lambda: limits(int(of_processor)))
        for _ in range(int(seconds)):                      # in steps: a machine that stands still counts for one
            try: return process.wait(1)
            except subprocess.TimeoutExpired: pass
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return None


def new_tree(number):
    tree = os.path.join(WORK, f"tree{number}")
    shutil.rmtree(tree, ignore_errors=True)
    os.makedirs(tree)
    for name in ("tests", "examples"): shutil.copytree(os.path.join(ROOT, name), os.path.join(tree, name))
    for path in glob.glob(os.path.join(ROOT, "*")):
        if os.path.isfile(path) and (path.endswith((".h", ".cu", ".md")) or os.path.basename(path) == "Makefile"): shutil.copy(path, tree)
    return tree


class Check:
    """One way to look at a mutant: a program, or a script, in its short or its long form."""
    def __init__(self, name, build, command, flags=LEAK, variables=(), sections=None):
        self.name, self.build, self.command, self.flags, self.variables, self.sections = name, build, command, flags, variables, sections
        self.seconds, self.of_processor, self.hits, self.lines, self.passes = 300, 3600, {}, None, False

    def notices(self, tree, made):                         # True, False, or None where the mutant does not compile
        if made.get(self.build) != self.flags:
            if run(["make", "-s", "-B", f"CC={CC}", f"CFLAGS={self.flags} {CFLAGS}", self.build], tree, 1200) != 0: return None
            made[self.build] = self.flags
        return run(self.command, tree, 10 * self.seconds + 30, self.variables, self.of_processor) != 0

    def begin(self, tree, source):                         # cnn.h as it is must pass; how long that takes
        with open(os.path.join(tree, "cnn.h"), "w") as file: file.write(source)
        self.notices(tree, built := {})
        begun = time.time()
        self.passes = self.notices(tree, built) is False
        self.seconds = time.time() - begun
        self.of_processor = 5 * self.seconds + 10
        if not self.passes:
            output = open(os.path.join(tree, "output"), errors="replace").read()
            sys.exit(f"mutants: {self.name} fails on cnn.h as it is:\n{output[-3000:]}")

    def look_where(self, tree):                            # which lines of cnn.h it runs
        if not shutil.which("gcov") or self.build == "all": return
        run(["make", "-s", "-B", "CC=gcc", f"CFLAGS=-O0 --coverage {CFLAGS}", self.build], tree, 1200)
        run(self.command, tree, 600, self.variables)
        notes = glob.glob(os.path.join(tree, self.build + "*.gcda"))
        found = subprocess.run(["gcov", "--stdout", "--json-format", *notes], cwd=tree, capture_output=True, text=True).stdout
        self.lines = {}                                    # by number: was it run
        for file in (f for part in found.split("\n") if part for f in json.loads(part)["files"]):
            for line in file["lines"] if os.path.basename(file["file"]) == "cnn.h" else []:
                number = line["line_number"]
                self.lines[number] = self.lines.get(number, False) or line["count"] > 0
        for path in notes: os.remove(path)

    def may_notice(self, mutant):                          # yes where gcov does not know, as in a table
        if self.sections and mutant.section not in self.sections: return False
        return self.lines is None or any(self.lines.get(n, True) for n in range(mutant.line, mutant.last + 1))


KERNELS = ["simd", "textbook", "direct"]
OTHER = ["error", "memory", "random", "threads", "layers", "net", "train", "data", "file", "look"]


def checks_of():
    """The short form, the same under the sanitizers, and the long form."""
    short, sanitized, long_ = [], [], []
    for path in sorted(glob.glob(os.path.join(ROOT, "tests", "test_*.c"))):
        name = os.path.basename(path)[5:-2]
        program, little, slow = f"build/test_{name}", [("CNN_TEST_SHORT", "1")], name in ("backends", "fixtures")
        short.append(Check(name, program, [program], "-O1 -fsanitize=leak" if slow else LEAK, little))
        few = [program] + (["simd", "5"] if name == "backends" else [])
        if name != "fixtures": sanitized.append(Check(name + ", sanitized", program, few, SANITIZE, little, slow and KERNELS))
        if "CNN_TEST_SHORT" in open(path).read(): long_.append(Check(name + ", long", program, [program], "-O1"))
        for isa in ("avx2", "baseline"):
            if name == "backends": short.append(Check(f"{name}, {isa}", program, [program], "-O1", little + [("CNN_ISA", isa)]))
    for script in ("walkthrough", "programs"):
        if os.path.exists(os.path.join(ROOT, "tests", "programs", script + ".sh")):
            long_.append(Check(script, "all", ["tests/run", f"tests/programs/{script}.sh"], "-O1", (), OTHER))
    return short, sanitized, long_


stopping = threading.Event()


def look_at(mutant, source, tree, forms, lock):
    """Sets noticed_by; "" where nothing notices; False where it does not compile."""
    with open(os.path.join(tree, "cnn.h"), "w") as file: file.write(mutant.plant(source))
    made = {}
    mutant.run_by = [c.name for c in forms[0] if c.may_notice(mutant)]
    for form in forms:
        with lock: order = sorted(form, key=lambda c: (-c.hits.get(mutant.section, 0), c.seconds))
        order = [c for c in order if c.may_notice(mutant)] or (order if form is forms[0] else [])
        for check in order[:5] if form is forms[1] else order:             # the sanitizers take long: the quickest
            if stopping.is_set(): break
            noticed = check.notices(tree, made)
            if noticed and not check.passes:               # under the sanitizers: does cnn.h, as it is?
                check.begin(tree, source)
            if noticed is None:
                mutant.noticed_by = check.name + " (does not compile there)" if made else False
                return mutant
            if noticed:
                with lock: check.hits[mutant.section] = check.hits.get(mutant.section, 0) + 1
                mutant.noticed_by = check.name
                return mutant
    mutant.noticed_by = ""
    return mutant


def show(m, word=""): return f"{m.id}  cnn.h:{m.line}  >>{m.section} {m.function}  {m.kind}{word}\n    - {m.before}\n    + {m.after}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--section", help="only there, e.g. simd, or net,data")
    parser.add_argument("--function", help="only there, e.g. cnn__inflate,cnn__crc32")
    parser.add_argument("--only", help="ids, with commas")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--short", action="store_true", help="leave the long forms out")
    o = parser.parse_args()
    for stop in (signal.SIGINT, signal.SIGTERM): signal.signal(stop, signal.default_int_handler)
    source = open(os.path.join(ROOT, "cnn.h")).read()
    places = places_of(source)
    if o.section: places = [m for m in places if m.section in o.section.split(",")]
    if o.function: places = [m for m in places if m.function in o.function.split(",")]
    random.Random(o.seed).shuffle(places)
    if o.only: places = [m for m in places if m.id in o.only.split(",")]
    if not places: sys.exit("mutants: there is no such place")
    count = len(places) if o.only else min(o.count, len(places))
    print(f"mutants: {count} of {len(places)} places in cnn.h{' >>' + o.section if o.section else ''}, seed {o.seed}, {o.jobs} at a time")
    if o.list:
        for m in places[:count]: print(show(m))
        return 0
    started, lock, trees, known = time.time(), threading.Lock(), queue.Queue(), equivalent_ones()
    for i in range(o.jobs): trees.put(new_tree(i))
    short, sanitized, long_ = checks_of()
    if o.short: long_ = []
    forms = [short, sanitized, long_]

    def begin(check):
        mine = trees.get()
        try:
            check.begin(mine, source)
            if check in short: check.look_where(mine)
        finally: trees.put(mine)

    pool = concurrent.futures.ThreadPoolExecutor(o.jobs)
    try:
        for _ in pool.map(begin, short + long_): pass
    except (KeyboardInterrupt, SystemExit):
        pool.shutdown(cancel_futures=True)
        raise
    run_by_some = {number for c in short for number in c.lines or ()}
    for c in short:                                        # a function that a program never calls is not in it
        if c.lines: c.lines.update((number, False) for number in run_by_some - set(c.lines))
    for check in sanitized + long_:
        plain = next((c for c in short if c.build == check.build), check)
        check.lines = plain.lines
        if check in sanitized: check.seconds, check.of_processor = 10 * plain.seconds, 10 * plain.of_processor
    print(f"cnn.h as it is passes: {', '.join(c.name for c in short + long_)}; {time.time() - started:.0f} s", flush=True)

    def task(m):
        mine = trees.get()
        try: return look_at(m, source, mine, forms, lock)
        finally: trees.put(mine)

    todo, done, redrawn, same = iter(places), [], 0, []
    try:
        while len(done) + len(same) < count:               # as many again as did not compile
            batch = []
            for m in todo:
                if (m.named in known or (m.function,) in known) and not o.only: same.append(m)
                else: batch.append(m)
                if len(done) + len(same) + len(batch) == count: break
            if not batch: break
            for future in concurrent.futures.as_completed([pool.submit(task, m) for m in batch]):
                m = future.result()
                if m.noticed_by is False: redrawn += 1; continue
                done.append(m)
                if len(done) % 25 == 0: print(f"{len(done)} of {count}, {time.time() - started:.0f} s", flush=True)
                if m.noticed_by == "": print(show(m, f": NOT NOTICED, run by {', '.join(m.run_by) or 'no test'}"), flush=True)
                elif o.only: print(show(m, ": noticed by " + m.noticed_by), flush=True)
    except KeyboardInterrupt:                              # the sum of what is done
        stopping.set()
        print("interrupted", flush=True)
    except SystemExit:                                     # cnn.h as it is fails
        stopping.set()
        pool.shutdown(cancel_futures=True)
        raise
    pool.shutdown(cancel_futures=True)
    while not trees.empty(): shutil.rmtree(scratch_of(trees.get()), ignore_errors=True)
    survivors = [m for m in done if m.noticed_by == ""]
    for m in same: print(f"{show(m, ': equivalent')}\n    {known.get(m.named) or known[(m.function,)]}")
    for section in sorted({m.section for m in done}):
        here = [m for m in done if m.section == section]
        print(f">>{section:<10} {sum(m.noticed_by != '' for m in here):4} of {len(here):4} noticed")
    by = {}
    for m in done:
        if m.noticed_by: by[m.noticed_by] = by.get(m.noticed_by, 0) + 1
    print("noticed by: " + ", ".join(f"{name} {n}" for name, n in sorted(by.items(), key=lambda x: -x[1])))
    print(f"{time.time() - started:.0f} s; {redrawn} did not compile and were drawn again; {len(same)} are named equivalent")
    if survivors: print("not noticed: " + ",".join(m.id for m in survivors))
    noticed = len(done) - len(survivors)
    print(f"mutants: {noticed} of {len(done)} noticed, {100 * noticed / max(1, len(done)):.1f} %"
          f" (seed {o.seed}, {len(same)} equivalent ones besides)")
    return 0


if __name__ == "__main__": sys.exit(main())
