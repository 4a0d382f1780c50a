#!/bin/sh
# download.sh - fetches a data set and checks it:  examples/download.sh {mnist|fashion-mnist|cifar-10} [FOLDER]
#
# Each file comes from the first mirror that has it, resumes where an interrupted run stopped, is checked
# by its digest, unpacked beside its place and renamed into it: a file is whole or not there.
# CNN_MIRRORS="URL URL ..." replaces the mirrors.
set -eu

set_name=${1:-}
case $set_name in
mnist)
    mirrors="https://ossci-datasets.s3.amazonaws.com/mnist https://storage.googleapis.com/cvdf-datasets/mnist"
    files="train-images-idx3-ubyte.gz f68b3c2dcbeaaa9fbdd348bbdeb94873 ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db
           train-labels-idx1-ubyte.gz d53e105ee54ea40749a09fcbcd1e9432 65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5
           t10k-images-idx3-ubyte.gz  9fb629c4189551a2d022fa330f9573f3 0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7
           t10k-labels-idx1-ubyte.gz  ec29112dd5afa0611ce80d1b7f02629c ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2" ;;
fashion-mnist)
    mirrors="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
    files="train-images-idx3-ubyte.gz 8d4fb7e6c68d591d4c3dfef9ec88bf0d -
           train-labels-idx1-ubyte.gz 25c81989df183df01b3e8a0aad5dffbe -
           t10k-images-idx3-ubyte.gz  bef4ecab320f06d8554ea6380940ec79 -
           t10k-labels-idx1-ubyte.gz  bb300cfdad3c16e7a12a480ee83cd310 -" ;;
cifar-10)
    mirrors="https://www.cs.toronto.edu/~kriz"
    files="cifar-10-binary.tar.gz c32a1d4ab5d03f1284b67883e8d87530 -" ;;
*)
    echo "usage: $0 {mnist|fashion-mnist|cifar-10} [FOLDER]" >&2
    exit 2 ;;
esac
mirrors=${CNN_MIRRORS:-$mirrors}
folder=${2:-data/$set_name}

fail() { echo "download.sh: $*" >&2; exit 1; }
command -v curl >/dev/null || fail "needs curl; install it with your system's packages (apt install curl)"

digest() {  # digest {md5|sha256} FILE
    if command -v "${1}sum" >/dev/null; then "${1}sum" "$2" | cut -d' ' -f1
    elif [ "$1" = md5 ]; then md5 -q "$2"
    else shasum -a 256 "$2" | cut -d' ' -f1
    fi
}

# Fetches $1 with the md5 $2 into $folder/$1.part, whole and checked.
fetch() {
    part=$folder/$1.part reached=no
    for mirror in $mirrors; do
        # a run that was interrupted goes on; if what it left is no use, once more from the start
        for try in resume restart; do
            [ $try = resume ] || rm -f "$part"
            echo "$1: from $mirror"
            status=0
            curl --fail --location --silent --show-error --connect-timeout 20 --speed-limit 1000 --speed-time 60 --continue-at - --output "$part" "$mirror/$1" || status=$?
            # curl's 5, 6 and 7: no proxy, no name, no connection. What an earlier run left is kept for the next.
            case $status in 5|6|7) break ;; *) reached=yes ;; esac
            [ -s "$part" ] && [ "$(digest md5 "$part")" = "$2" ] && return 0
            [ $try = restart ] || [ -s "$part" ] || break      # nothing came: the next mirror
        done
        case $status in
        5|6|7) echo "$1: $mirror cannot be reached" >&2; continue ;;
        22) echo "$1: $mirror does not have it" >&2 ;;
        *)  if head -c 200 "$part" 2>/dev/null | grep -qi '<html\|<!doctype'; then echo "$1: $mirror sent a web page in its place" >&2
            else echo "$1: what $mirror sent has the wrong digest or is cut off" >&2; fi ;;
        esac
        rm -f "$part"
    done
    [ $reached = yes ] || fail "no network: none of the mirrors of $1 can be reached ($mirrors)"
    fail "$1 could not be had from: $mirrors"
}

mkdir -p "$folder"
echo "$files" | while read -r file md5 sha256; do
    if [ "$set_name" = cifar-10 ]; then
        [ -f "$folder/test_batch.bin" ] && continue
        fetch "$file" "$md5"
        rm -rf "$folder/unpacking"
        mkdir "$folder/unpacking"
        gzip -dc "$folder/$file.part" | (cd "$folder/unpacking" && tar xf -)
        for batch in data_batch_1 data_batch_2 data_batch_3 data_batch_4 data_batch_5 test_batch; do     # the last one says: done
            [ "$(wc -c <"$folder/unpacking/cifar-10-batches-bin/$batch.bin")" -eq 30730000 ] || fail "$batch.bin does not have 30730000 bytes"
            mv "$folder/unpacking/cifar-10-batches-bin/$batch.bin" "$folder/"
        done
        rm -rf "$folder/unpacking" "$folder/$file.part"
        continue
    fi
    plain=$folder/${file%.gz}
    [ -f "$plain" ] && { [ "$sha256" = - ] || [ "$(digest sha256 "$plain")" = "$sha256" ]; } && continue
    fetch "$file" "$md5"
    gzip -dc "$folder/$file.part" >"$plain.part"
    [ "$sha256" = - ] || [ "$(digest sha256 "$plain.part")" = "$sha256" ] || fail "$plain has the wrong digest after unpacking"
    mv "$plain.part" "$plain"
    rm -f "$folder/$file.part"
done
echo "$set_name is in $folder"
