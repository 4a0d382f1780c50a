#!/bin/sh
# download.sh - tries examples/download.sh against a web server on this machine: a good mirror, a dead one before it, a cut-off
# answer, a wrong digest, an interrupted run that is repeated. Needs python3 and curl; the data sets are small fakes, so their
# digests are written into a copy of the script.
passed=0 failed=0
for tool in python3 curl; do
    command -v $tool >/dev/null || { echo "SKIP download: there is no $tool"; echo "download: 0 passed, 0 failed, 1 skipped"; exit 0; }
done
top=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null; rm -rf "$work"' EXIT
cd "$work" || exit 1

check() {  # check NAME: the last command's status is $?
    if [ $? -eq 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAIL download: $1"; sed 's/^/    /' log; fi
}

# a small MNIST, and the script with its digests
mkdir -p good broken wrong page
for name in train-images-idx3-ubyte train-labels-idx1-ubyte t10k-images-idx3-ubyte t10k-labels-idx1-ubyte; do
    head -c 200000 /dev/urandom >"$name"
    gzip -c "$name" >"good/$name.gz"
    head -c 1000 "good/$name.gz" >"broken/$name.gz"
    head -c 50000 /dev/urandom >"wrong/$name.gz"
    echo '<!DOCTYPE html><html>log in first' >"page/$name.gz"
    printf 's/^\\(.*%s.gz *\\)[0-9a-f]\\{32\\} [0-9a-f]\\{64\\}/\\1%s %s/\n' "$name" "$(md5sum "good/$name.gz" | cut -d' ' -f1)" "$(sha256sum "$name" | cut -d' ' -f1)"
done >digests.sed
sed -f digests.sed "$top/examples/download.sh" >download.sh
python3 -c '
import http.server, sys
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
open("port", "w").write(str(server.server_port)); server.serve_forever()' 2>/dev/null &
server=$!
while [ ! -s port ]; do sleep 0.1; done
url=http://127.0.0.1:$(cat port)

get() { CNN_MIRRORS="$1" sh download.sh mnist "$2" >log 2>&1; }
whole() { for name in train-images-idx3-ubyte train-labels-idx1-ubyte t10k-images-idx3-ubyte t10k-labels-idx1-ubyte; do cmp -s "$name" "$1/$name" || return 1; done; }
clean() { [ -z "$(find "$1" -name '*.part')" ]; }

get "$url/good" a && whole a && clean a; check "a good mirror"
get "http://127.0.0.1:9 $url/good" b && whole b && clean b; check "a dead mirror first"
get "$url/missing $url/good" c && whole c && clean c; check "a mirror without the files first"
get "$url/broken $url/good" d && whole d && clean d; check "a mirror that sends cut-off files first"
get "$url/wrong $url/good" e && whole e && clean e; check "a mirror whose files have the wrong digest first"
! get "$url/broken $url/wrong" f && [ -z "$(find f -type f)" ] && grep -q "could not be had" log; check "no usable mirror: a sentence, and nothing left"
! get "http://127.0.0.1:9 http://nowhere.invalid" l && [ -z "$(find l -type f)" ] && tail -n 1 log | grep -q "no network: none of the mirrors of train-images-idx3-ubyte.gz can be reached" &&
    ! grep -q digest log && grep -q "127.0.0.1:9 cannot be reached" log; check "no network"
mkdir m && head -c 1000 good/train-images-idx3-ubyte.gz >m/train-images-idx3-ubyte.gz.part && ! get "http://127.0.0.1:9" m && [ "$(wc -c <m/train-images-idx3-ubyte.gz.part)" -eq 1000 ]; check "no network: what an earlier run left stays"
! get "$url/missing" n && grep -q "missing does not have it" log && ! grep -q "no network" log; check "a mirror that has nothing"
! get "$url/page" o && grep -q "page sent a web page in its place" log && [ -z "$(find o -type f)" ]; check "a web page in the file's place"
mkdir g && head -c 100000 good/train-images-idx3-ubyte.gz >g/train-images-idx3-ubyte.gz.part && get "$url/good" g && whole g && clean g; check "an interrupted run, repeated"
mkdir h && head -c 100000 /dev/urandom >h/train-images-idx3-ubyte.gz.part && get "$url/good" h && whole h && clean h; check "rubbish left by another program"
cp -r a i && rm i/t10k-labels-idx1-ubyte && printf x >>i/train-labels-idx1-ubyte && get "$url/good" i && whole i && clean i; check "one file missing, one damaged"
! sh download.sh nothing >log 2>&1; check "an unknown data set is refused"

# CIFAR-10: an archive of six files of exactly 30,730,000 bytes
mkdir -p cifar-10-batches-bin
for batch in data_batch_1 data_batch_2 data_batch_3 data_batch_4 data_batch_5 test_batch; do head -c 30730000 /dev/zero >cifar-10-batches-bin/$batch.bin; done
tar czf good/cifar-10-binary.tar.gz cifar-10-batches-bin
sed "s/c32a1d4ab5d03f1284b67883e8d87530/$(md5sum good/cifar-10-binary.tar.gz | cut -d' ' -f1)/" download.sh >cifar.sh
CNN_MIRRORS="$url/good" sh cifar.sh cifar-10 j >log 2>&1 && [ "$(wc -c <j/test_batch.bin)" -eq 30730000 ] && [ "$(ls j | wc -l)" -eq 6 ]; check "CIFAR-10"
head -c 100 /dev/zero >cifar-10-batches-bin/data_batch_3.bin
tar czf good/cifar-10-binary.tar.gz cifar-10-batches-bin
sed "s/c32a1d4ab5d03f1284b67883e8d87530/$(md5sum good/cifar-10-binary.tar.gz | cut -d' ' -f1)/" download.sh >cifar.sh
! CNN_MIRRORS="$url/good" sh cifar.sh cifar-10 k >log 2>&1 && grep -q "does not have 30730000 bytes" log && [ ! -f k/test_batch.bin ]; check "CIFAR-10 with a short file"

echo "download: $passed passed, $failed failed"
[ "$failed" -eq 0 ]
