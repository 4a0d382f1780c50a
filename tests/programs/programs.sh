#!/bin/sh
# programs.sh - the training programs as their users call them: what they print and write, and what they say to wrong input.
# Run from the repository root, after make.
passed=0 failed=0 skipped=0
top=$(pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
unset CNN_DATA CNN_ISA

ok() {  # ok NAME COMMAND...
    name=$1; shift
    if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAIL programs: $name"; head -n 5 out err 2>/dev/null | sed 's/^/    /'; fi
}
run() { "$top/$@" >out 2>err; }
says() { grep -q -- "$1" out; }

# One sentence on stderr that has $2, exit status 1, and no file written: refused PROGRAM PATTERN ARGUMENTS...
refused() {
    program=$1 pattern=$2; shift 2
    rm -rf empty && mkdir empty
    (cd empty && "$top/$program" "$@" >../out 2>../err)
    [ $? -eq 1 ] && [ "$(wc -l <err)" -eq 1 ] && grep -q -- "$pattern" err && [ -z "$(ls empty)" ]
}

# ---- training on built-in digits ----

small="--limit 1280 --epochs 2 --threads 2"
ok "lenet5 runs without data" run lenet5 $small
ok "it says that it uses built-in digits" says 'No MNIST in data/mnist (get it: make mnist): training on built-in digits instead.'
ok "an epoch is one line" says '^epoch 2/2 train_loss [0-9.]* train_acc [0-9.]*% test_loss [0-9.]* test_acc [0-9.]*% seconds [0-9.]*$'
ok "plain progress lines where stderr is no terminal" grep -q '^epoch 1/2 .*samples/s' err
ok "it writes its curves" test -s lenet5.svg -a -s lenet5.csv
ok "the CSV has a line an epoch" test "$(wc -l <lenet5.csv)" -eq 3
losses() { sed -n 's/ seconds.*//; /^epoch/p' "$1"; }
run lenet5 $small --quiet; losses out >reference
ok "--quiet prints only the epochs" test "$(wc -l <out)" -eq 3 -a ! -s err
run lenet5 --limit 1280 --epochs 2 --threads 1 --quiet; losses out >other
ok "the same losses with one thread" cmp -s reference other
run lenet5 $small --quiet --seed 5; losses out >other
ok "another seed, other losses" sh -c '! cmp -s reference other'
run lenet5 --limit 256 --epochs 1 --quiet --backend direct; losses out >direct
run lenet5 --limit 256 --epochs 1 --quiet --backend simd; losses out >simd
ok "direct and simd print the same losses" cmp -s direct simd
run lenet5 --limit 256 --epochs 1 --quiet --precision tf32; losses out >other
ok "--precision tf32 changes nothing where there is no TF32" cmp -s simd other

# what runs is what the card shows: LeNet-5 goes back through its pooling by the card's function
if gdb -batch -ex run --args true >gdb 2>&1 && grep -q 'exited normally' gdb; then
    ${CC:-cc} -std=c99 -Og -g "$top/examples/lenet5.c" -o stepped -lm -pthread
    gdb -batch -ex 'break cnn__pool2d_backward' -ex run -ex backtrace \
        --args ./stepped --backend direct --limit 128 --epochs 1 --quiet >out 2>err
    ok "a breakpoint on the card's pooling gradient is hit" says '^#0  cnn__pool2d_backward (s='
    ok "it is called by cnn_backward" says '^#[0-9]* .* cnn_backward (net='
else
    skipped=$((skipped + 1))
    echo "SKIP programs: a breakpoint in the card's pooling gradient, as gdb is missing or cannot start a program"
fi

run lenet5 --limit 1280 --epochs 1 --threads 2 --quiet --checkpoint run.ckpt
run lenet5 $small --quiet --checkpoint run.ckpt --save resumed.pth
ok "a run goes on from its checkpoint" says 'continuing after epoch 1'
run lenet5 $small --quiet --save straight.pth
ok "and ends with the same bits as one that was never stopped" cmp -s resumed.pth straight.pth
ok "--load begins with a state dict" run lenet5 --limit 1280 --epochs 1 --quiet --load straight.pth
ok "a report" run lenet5 --limit 640 --epochs 1 --quiet --report report.html
ok "it is whole and needs nothing from elsewhere" sh -c 'grep -q "</html>" report.html && ! grep -qE "src=\"http|href=|<script|url\\(" report.html'
for part in 'Learning curves' 'Confusion matrix' 'Class by class' 'most confident mistakes' 'The network' "first layer's kernels" 'What each layer sees'; do
    ok "the report has: $part" grep -q "$part" report.html
done
ok "mnist_cnn runs" run mnist_cnn --limit 256 --epochs 1 --quiet
ok "export runs" run export --limit 1280 --epochs 1
ok "it writes LeNet-5 as C" grep -q '^void lenet5(float y\[10\], const float x\[784\]);$' lenet5_weights.c
ok "which reads the digits that cnn.h reads" sh -c 'sed -n "s/^with cnn.h: *//p" out | grep "^[0-9 ]*$" >with; sed -n "s/^lenet5_read: *//p" out | cmp -s - with && [ "$(wc -w <with)" -eq 10 ]'
rm -f lenet5_*

# each number of an epoch's line stands in the CSV, to the digits that are printed, and the sums are of the samples that were used
run lenet5 --limit 640 --epochs 3 --threads 2
sed -n 's/^epoch \([0-9]*\)\/3 train_loss \([0-9.]*\) train_acc \([0-9.]*\)% test_loss \([0-9.]*\) test_acc \([0-9.]*\)%.*/\1 \2 \3 \4 \5/p' out >printed
ok "three lines of numbers" test "$(wc -l <printed)" -eq 3
head -n 1 lenet5.csv >columns
ok "the lines of the epochs and the CSV say the same" awk -v columns="$(cat columns)" '
    BEGIN { n = split(columns, name, ","); for (i = 1; i <= n; i++) at[name[i]] = i }
    NR == FNR { if (FNR > 1) { split($0, v, ","); row[v[1]] = $0 } next }
    { split(row[$1], v, ","); accuracy = v[at["train_acc"]] * (v[at["train_acc"]] <= 1 ? 100 : 1); tested = v[at["test_acc"]] * (v[at["test_acc"]] <= 1 ? 100 : 1)
      if (d($2, v[at["train_loss"]]) > 6e-5 || d($4, v[at["test_loss"]]) > 6e-5 || d($3, accuracy) > .006 || d($5, tested) > .006) bad = 1; n++ }
    function d(a, b) { return a > b ? a - b : b - a }
    END { exit bad || n < 3 }' lenet5.csv printed
ok "accuracies are shares of 640 samples" awk '{ for (i = 3; i <= 5; i += 2) { s = $i * 6.4; r = int(s + .5); if (s - r > .04 || r - s > .04) exit 1 } }' printed
ok "the line of the data set" says '^built-in digits: 640 training and 640 test samples of 1 x 28 x 28$'

# ---- files that cannot be written are told before the first epoch; nothing is left behind ----

mkdir folder && echo old >kept.pth
for file in '--save /nowhere/net.pth' '--checkpoint /nowhere/run.ckpt' '--report /nowhere/r.html'; do
    ok "$file" refused lenet5 "$file: cannot be written: No such file or directory" --limit 128 $file
    ok "no epoch was trained for $file" sh -c '! grep -q ^epoch out'
done
ok "a folder in the file's place" refused lenet5 '--save ../folder: cannot be written: it is a folder' --limit 128 --save ../folder
ok "a path that ends as a folder" refused lenet5 'folder/: cannot be written: it is a folder' --limit 128 --report ../folder/
ok "an ending that is no format" refused lenet5 '--save net.h5: .*the ending chooses the format' --limit 128 --save net.h5
ok "the file that was there stays" sh -c 'refused_before=$(cat kept.pth); '"'$top/lenet5'"' --limit 128 --save kept.pth --report /nowhere/r >/dev/null 2>&1; [ "$(cat kept.pth)" = old ]'
ok "no trial is left" sh -c '! ls | grep -q trial'

# ---- Ctrl-C ----

# interrupted PATTERN ARGUMENTS...: lenet5 gets SIGINT once PATTERN stands in out or err; its status is in $status
interrupted() {
    pattern=$1; shift
    rm -rf run && mkdir run
    (cd run && exec "$top/lenet5" --limit 12000 --batch 32 --epochs 50 --threads 1 "$@" >../out 2>../err) &
    child=$!
    for _ in $(seq 1200); do grep -q "$pattern" out err 2>/dev/null && break; sleep 0.05; done
    kill -INT $child
    wait $child; status=$?
}
: >out; : >err
interrupted '^total\|total, for one sample' --save net.pth --checkpoint run.ckpt --report r.html
ok "Ctrl-C in the first epoch: status 130" test $status -eq 130
ok "it says where it stopped" grep -q '^lenet5: stopped in epoch 1 of 50; saving the files asked for' err
ok "and what it saved" sh -c 'grep -q "^State dict: net.pth" out && grep -q "^Report: r.html" out && grep -q "^Checkpoint: run.ckpt, from the middle of epoch 1" out'
ok "the cut epoch has no line" sh -c '! grep -q "^epoch 1/50 train_loss" out'
ok "the files are there, and no curves of no epoch" sh -c 'test -s run/net.pth -a -s run/run.ckpt && grep -q "</html>" run/r.html && [ "$(ls run | wc -l)" -eq 3 ]'
ok "the state dict loads" run lenet5 --limit 128 --epochs 1 --quiet --load run/net.pth
ok "the checkpoint loads" sh -c "'$top/lenet5' --limit 128 --epochs 1 --quiet --checkpoint run/run.ckpt >out && grep -q 'continuing after epoch 0' out"
: >out; : >err
interrupted '^epoch 1/50 train_loss' --limit 1280 --save net.safetensors --checkpoint run.ckpt
ok "Ctrl-C later: status 130" test $status -eq 130
epochs=$(grep -c '^epoch [0-9]*/50 train_loss' out)
ok "the CSV has the whole epochs alone" test "$(wc -l <run/lenet5.csv)" -eq $((epochs + 1))
ok "the checkpoint is of the last whole one" grep -q "^Checkpoint: run.ckpt, from the end of epoch $epochs\$" out
cp run/run.ckpt went-on.ckpt
ok "and ends with the bits of a run that was never stopped" sh -c "'$top/lenet5' --limit 1280 --batch 32 --threads 1 --quiet --epochs $((epochs + 1)) --checkpoint went-on.ckpt --save a.pth >out &&
    '$top/lenet5' --limit 1280 --batch 32 --threads 1 --quiet --epochs $((epochs + 1)) --save b.pth >out && cmp -s a.pth b.pth"

# ---- wrong input ----

ok "an unknown option" refused lenet5 'there is no option --epoch; --help lists' --epoch 3
run lenet5 --help
ok "-h is --help" sh -c "'$top/lenet5' -h | cmp -s - out"
for program in conv1d conv2d padding stride kernels activation pooling sharing lenet1998 $([ -x "$top/edges" ] && echo augment edges); do
    ok "$program --help" sh -c "'$top/$program' --help | grep -q 'usage: ./$program' && '$top/$program' -h | grep -q '^$program - '"
    ok "$program --epochs" refused $program '--epochs: there is no such option' --epochs
done
if [ -x "$top/augment" ]; then
    ok "augment runs without data" run augment
    ok "it says that it uses built-in digits" says 'built-in digits instead'
    ok "it writes its sheet" sh -c "od -A n -t x1 -N 24 augment.png | tr -d ' \n' | grep -q '^89504e470d0a1a0a0000000d49484452000002ca000002ca\$'"
    ok "augment refuses a missing folder" refused augment 'nowhere/data_batch_1.bin: cannot be opened' nowhere
fi
ok "the largest seed" run lenet5 --limit 128 --epochs 1 --quiet --seed 18446744073709551615
losses out >largest; run lenet5 --limit 128 --epochs 1 --quiet --seed 18446744073709551614; losses out >other
ok "and the one before it are two seeds" sh -c '! cmp -s largest other'
for bad in 18446744073709551616 99999999999999999999 1e3 0x10 ' 1' '' +1; do
    ok "--seed '$bad'" refused lenet5 'must be a whole number from 0 to 18446744073709551615' --seed "$bad"
done
ok "--limit 2147483648" refused lenet5 'from 1 to 2147483647' --limit 2147483648
for bad in '--epochs 0' '--epochs x' '--batch 0' '--batch -1' '--lr 0' '--lr nan' '--seed -1' '--threads 0' '--limit 0' '--limit 1.5'; do
    ok "$bad" refused lenet5 'must be a .*number from .* to ' $bad
done
ok "an unknown precision" refused lenet5 '--precision bf16: must be float32 or tf32' --precision bf16
for program in losses features export; do
    run $program --help && mv out help
    for option in --save --load --checkpoint --report --quiet; do
        ok "$program $option" refused $program "there is no option $option; --help lists" $option x
        ok "$program --help does not list $option" sh -c "grep -q -- --seed help && ! grep -q -- $option help"
    done
done
run lenet5 --help
ok "lenet5 --help lists its options" sh -c 'grep -q -- --seed out && grep -q -- --save out && grep -q -- --quiet out'
ok "an option without its value" refused lenet5 '--epochs needs a value' --epochs
ok "an unknown backend" refused lenet5 'no backend "fast"; this program has direct, simd' --backend fast --limit 128
ok "a folder without data" refused lenet5 'no MNIST in /nowhere; get it with: make mnist' --data /nowhere
ok "no Fashion-MNIST" refused fashion_mnist 'no Fashion-MNIST in data/fashion-mnist; get it with: make fashion-mnist'
ok "no CIFAR-10" refused cifar10 'no CIFAR-10 in data/cifar-10; get it with: make cifar-10'
ok "a batch larger than the data" refused lenet5 '100 samples do not fill one batch of 128' --limit 100
ok "a missing state dict" refused lenet5 'nothing.pth: cannot be opened' --load nothing.pth --limit 128
ok "a state dict of another network" refused mnist_cnn 'straight.pth' --load "$work/straight.pth" --limit 128

# small IDX files: `images COUNT BYTES` and `labels COUNT BYTE...`
word() { printf "\\$(printf %o $(($1 >> 24 & 255)))\\$(printf %o $(($1 >> 16 & 255)))\\$(printf %o $(($1 >> 8 & 255)))\\$(printf %o $(($1 & 255)))"; }
images() { word 2051; word "$1"; word 28; word 28; head -c "$2" /dev/zero; }
labels() { word 2049; word "$1"; head -c "$2" /dev/zero; }
mnist() { rm -rf mnist && mkdir mnist && for split in train t10k; do images 200 156800 >mnist/$split-images-idx3-ubyte; labels 200 200 >mnist/$split-labels-idx1-ubyte; done; }
mnist
ok "these IDX files are good" run lenet5 --data mnist --epochs 1 --quiet
images 200 156799 >mnist/train-images-idx3-ubyte
ok "cut-off images" refused lenet5 'train-images-idx3-ubyte: its header promises 156816 bytes, but it has 156815' --data ../mnist
mnist; gzip -c mnist/t10k-images-idx3-ubyte >packed && mv packed mnist/t10k-images-idx3-ubyte
ok "packed images under the plain name" refused lenet5 't10k-images-idx3-ubyte: is gzip-compressed, not an IDX file of images; unpack it: gzip -d, after' --data ../mnist
mnist; gzip mnist/train-images-idx3-ubyte
ok "packed images" refused lenet5 'train-images-idx3-ubyte.gz is packed; unpack it: gzip -dk ' --data ../mnist
mnist; printf x | dd of=mnist/train-labels-idx1-ubyte bs=1 seek=3 conv=notrunc 2>/dev/null
ok "a wrong magic number" refused lenet5 'train-labels-idx1-ubyte: begins with 00 00 08 78, but an IDX file of labels begins with 00 00 08 01' --data ../mnist
mnist; labels 199 199 >mnist/t10k-labels-idx1-ubyte
ok "fewer labels than images" refused lenet5 't10k-labels-idx1-ubyte has 199 labels, but .*t10k-images-idx3-ubyte has 200 images' --data ../mnist
mnist; printf '\012' | dd of=mnist/train-labels-idx1-ubyte bs=1 seek=20 conv=notrunc 2>/dev/null
ok "a label out of range" refused lenet5 'label 10 of sample 12 is outside 0 .. 9; the largest is 10: give 11 classes to cnn_load_idx' --data ../mnist
mnist; rm mnist/t10k-labels-idx1-ubyte
ok "a missing file" refused lenet5 't10k-labels-idx1-ubyte: cannot be opened' --data ../mnist
mnist; { images 200 78400; head -c 78400 /dev/zero | tr '\0' '\377'; } >mnist/t10k-images-idx3-ubyte
ok "Fashion-MNIST in MNIST's place" refused lenet5 "holds Fashion-MNIST's clothes, not MNIST's digits" --data ../mnist
mnist
ok "MNIST in Fashion-MNIST's place" refused fashion_mnist "holds MNIST's digits" --data ../mnist
ok "MNIST in CIFAR-10's place" refused cifar10 'there is no CIFAR-10 in ../mnist; get it with: make cifar-10' --data ../mnist
for place in MNIST/raw raw mnist; do
    mkdir -p "tv/$place" && cp mnist/* "tv/$place/"
    ok "MNIST in tv/$place, from the folder above" run lenet5 --data tv --epochs 1 --quiet
    ok "and by CNN_DATA" sh -c "CNN_DATA='$work/tv' '$top/lenet5' --epochs 1 >out 2>err && grep -q '^MNIST: 200 training and 200 test samples of 1 x 28 x 28' out"
    rm -r tv
done
for file in train-images train-labels t10k-images t10k-labels; do mv mnist/$file-idx?-ubyte mnist/$file.idx"$(case $file in *images) echo 3;; *) echo 1; esac)"-ubyte; done
ok "names with a dot" run lenet5 --data mnist --epochs 1 --quiet
echo '<!DOCTYPE html><html>' >mnist/train-images.idx3-ubyte
ok "a web page in the images' place" refused lenet5 'train-images.idx3-ubyte: is a web page, not an IDX file of images: the download failed' --data ../mnist

# ---- program 6-5 ----

if [ -x "$top/pretrained" ]; then
    mkdir cifar && for batch in data_batch_1 data_batch_2 data_batch_3 data_batch_4 data_batch_5 test_batch; do
        head -c 30730000 /dev/zero >cifar/$batch.bin; done
    run cifar10 --data cifar --epochs 1 --limit 128 --quiet
    accuracy=$(sed -n 's/.*\(test_acc [0-9.]*%\).*/\1/p' out)
    ok "cifar10 saves its state dict" test -s my_cnn_state_dict.pth
    run resnet --data cifar --epochs 1 --limit 256 --quiet --save r20.pth
    ok "resnet trains an epoch" grep -q '^epoch 1/1 train_loss [0-9.]* train_acc' out
    ok "resnet saves torchvision's keys" grep -q -a 'layer2.0.downsample.1.running_var' r20.pth
    run pretrained --data cifar --limit 128
    ok "--limit takes the first test samples" says '^CIFAR-10: 128 training and 128 test samples'
    ok "pretrained reaches the same accuracy" says "$accuracy"
    printf 'P6\n64 48\n255\n' >picture.ppm && head -c 9216 /dev/zero >>picture.ppm
    run pretrained --image picture.ppm
    ok "and names the three likeliest classes of a picture" awk -F'[:,]' '{ for (i = 2; i <= NF; i++) { split($i, w, " "); if (i > 2 && w[2] > last) exit 1; last = w[2]; sum += last } }
        END { exit !(NR == 1 && NF == 4 && sum > 25 && sum <= 100.2) }' out
    run pretrained --help && mv out help
    ok "pretrained --help lists --image" grep -q -- '--image FILE' help
    for option in --epochs --batch --lr --seed --save --checkpoint; do
        ok "pretrained $option" refused pretrained "there is no option $option; --help lists" $option 1
        ok "pretrained --help does not list $option" sh -c "! grep -q -- $option help"
    done
    ok "pretrained --image with --report" refused pretrained 'with --image no test samples are read' --image ../picture.ppm --report r.html
    ok "pretrained --report into nowhere" refused pretrained '--report /nowhere/r.html: cannot be written: No such file' --load ../my_cnn_state_dict.pth --data ../cifar --report /nowhere/r.html
    echo "no picture" >text
    ok "a file that is no picture" refused pretrained 'text: stb_image cannot decode it: unknown image type' --image ../text --load ../my_cnn_state_dict.pth
else
    skipped=$((skipped + 1))
    echo "SKIP programs: pretrained was not built, as stb_image is missing"
fi

# ---- one's own photographs ----

if [ -x "$top/photos" ]; then
    rm -rf photos && mkdir photos && cd photos || exit 1
    ${CC:-cc} -std=c99 -O2 $(pkg-config --cflags stb 2>/dev/null || echo "-I$top") "$top/tests/programs/photos_tool.c" -o tool -lm -pthread
    ok "photos_tool.c compiles" test -x tool
    ok "photos runs without a folder" run photos --size 28 --epochs 8 --threads 2 --report r.html
    ok "it says that it made one" says '^No --data FOLDER: learning photos_digits, which has drawn digits, instead.$'
    ok "of 1000 pictures in 10 folders" test "$(ls photos_digits/[0-9]/*.png | wc -l)" -eq 1000
    ok "a fifth is kept for the test" says '^photos_digits: 10 classes, 800 training and 200 test pictures, as 3 x 28 x 28$'
    ok "the digits are learned" awk '/^epoch 8\/8 / { for (i = 1; i < NF; i++) if ($i == "test_acc" && $(i + 1) + 0 >= 85) good = 1 } END { exit !good }' out
    ok "curves, a report with the classes, one file" sh -c 'test -s photos.svg -a -s photos.csv -a -s photos.safetensors && grep -q "photos on photos_digits" r.html'
    ok "the file has the classes" test "$(./tool fact photos.safetensors classes | tr '\n' ' ')" = '0 1 2 3 4 5 6 7 8 9 '
    ok "the size" test "$(./tool fact photos.safetensors size)" = 28
    ok "the scale" test "$(./tool fact photos.safetensors scale)" = 'mean 0.485 0.456 0.406 std 0.229 0.224 0.225'

    # 50 pictures: each line begins with the class and the probability that cnn_classify gives
    pictures=$(ls photos_digits/[0-9]/*[05].png | awk 'NR % 4 == 1')
    ok "--load names pictures" run photos --load photos.safetensors $pictures
    ok "a line each" test "$(wc -l <out)" -eq "$(echo "$pictures" | wc -l)" -a "$(wc -l <out)" -ge 40
    ./tool name photos.safetensors $pictures >expected
    sed 's/ %,.*/ %/' out >first
    ok "with the class and probability of cnn_classify" cmp -s first expected
    ok "most are right" awk -F'[/:, ]+' '{ if ($2 == $4) right++ } END { exit !(right >= .85 * NR) }' out
    ok "three classes, the likeliest first, of one whole" awk -F'[:,]' '{ n = 0; sum = 0; for (i = 2; i <= NF; i++) { split($i, w, " "); if (n++ && w[2] > last) exit 1; last = w[2]; sum += last }
        if (n != 3 || sum > 100.2 || sum < 40) exit 1 }' out
    ok "options may come last" run photos photos_digits/3/*1.png --load photos.safetensors --threads 1

    # what cannot be named
    one=../photos_digits/7/$(ls photos_digits/7 | head -n 1)
    net=../photos.safetensors
    head -c 100 "photos_digits/7/${one##*/}" >cut.png
    ok "a broken picture" refused photos "cut.png: " --load $net ../cut.png
    ok "a missing picture" refused photos 'gone.png: cannot be opened' --load $net ../gone.png $one
    ok "the others are named all the same" says "^$one: [0-9] [0-9.]* %, "
    ok "a file that is no picture" refused photos 'r.html: is a web page' --load $net ../r.html
    ok "a missing network" refused photos 'gone.safetensors: cannot be opened' --load gone.safetensors $one
    ok "a .pth" refused photos "straight.pth: has no metadata: it is of PyTorch's format" --load ../../straight.pth $one
    ok "a picture as the network" refused photos 'is it a .safetensors file' --load $one $one
    run lenet5 --limit 128 --epochs 1 --quiet --save lenet5.safetensors
    ok "the file of another program" refused photos 'lenet5.safetensors: has no metadata "size"; it has format' --load ../lenet5.safetensors $one
    ./tool forge forged.safetensors size none
    ok "an impossible size" refused photos '3 x 0 x 0' --load ../forged.safetensors $one
    ./tool forge forged.safetensors scale 'mean 0 std 1'
    ok "an impossible scale" refused photos 'forged.safetensors: its scale is no mean and std of three colours: mean 0 std 1' --load ../forged.safetensors $one
    ./tool forge forged.safetensors classes "$(printf 'one\ntwo')"
    ok "classes that the weights have not" refused photos 'does not fit the network: .*fc.weight: 1 x 128 instead of 2 x 128' --load ../forged.safetensors $one
    ./tool forge forged.safetensors classes 'only one'
    ok "one class is always right" sh -c "'$top/photos' --load forged.safetensors cut.png photos_digits/7/${one##*/} 2>err | grep -q ': only one 100.0 %\$'"
    ok "--load without pictures" refused photos '--load names pictures and trains nothing' --load $net
    ok "--load with --data" refused photos '--load names pictures and trains nothing' --load $net --data ../photos_digits $one
    ok "pictures without --load" refused photos 'to name pictures, give the network too: --load FILE' $one

    # what cannot be learned
    mkdir -p three empty-class/0 empty-class/1 none && cp -r photos_digits/[0-2] three && cp three/0/* empty-class/0
    ok "a missing folder" refused photos 'gone: cannot be opened as a folder' --data gone
    ok "a folder without folders" refused photos 'none: has no folder in it' --data ../none
    ok "a class without pictures" refused photos 'empty-class/1: has no picture' --data ../empty-class
    ok "--save as .pth" refused photos "--save net.pth: PyTorch's format has no place for metadata (\"classes\")" --data ../three --quiet --save net.pth
    ok "--pretrained of another network" refused photos 'straight.pth: nothing in it fits the network' --data ../three --quiet --pretrained ../../straight.pth --size 32
    ok "--pretrained of a narrow ResNet-18" refused photos 'photos.safetensors: .*fits' --data ../three --quiet --pretrained $net --size 32
    for option in --limit --checkpoint --image; do ok "photos $option" refused photos "there is no option $option" $option x; done
    ok "photos --help" sh -c "'$top/photos' -h | grep -q '^usage: ./photos \\[options\\] \\[PICTURES\\]\$' && '$top/photos' --help | grep -q -- '--pretrained FILE'"

    # the weights of a trained ResNet-18: first the last layer learns alone, then all
    ./tool pretrained resnet18.pth
    common="--data three --pretrained resnet18.pth --size 32 --alone 1 --threads 2"
    cp cut.png three/1/000.png
    ok "photos --pretrained" run photos $common --epochs 1 --save alone.safetensors
    ok "it says what it loads" says '^resnet18.pth: 60 of 62 parameters loaded; skipped: 2 mis-shaped (fc.weight: 7 x 512 instead of 3 x 512'
    ok "and that a picture is broken" sh -c 'grep -q "^three: left out 1 files that cannot be read$" out && grep -q "three/1/000.png: left out" err'
    ok "in the first epoch the last layer learns alone" test "$(./tool changed resnet18.pth alone.safetensors | tr '\n' ' ')" = 'fc.weight fc.bias '
    ok "photos --pretrained, then all" run photos $common --epochs 2 --save all.safetensors --quiet
    ok "everything learns" test "$(./tool changed alone.safetensors all.safetensors | wc -l)" -eq 62
    ok "the wide network names pictures" run photos --load all.safetensors three/*/*1.png
    ./tool name all.safetensors three/*/*1.png >expected
    sed 's/ %,.*/ %/' out >first
    ok "as cnn_classify does" cmp -s first expected
    cd ..
else
    skipped=$((skipped + 1))
    echo "SKIP programs: photos was not built, as stb_image is missing"
fi

printf 'programs: %d passed, %d failed' $passed $failed
[ $skipped -eq 0 ] || printf ', %d skipped' $skipped
echo
[ $failed -eq 0 ]
