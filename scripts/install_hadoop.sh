#!/usr/bin/env bash
# Installs what runs Hadoop's NameNode and DataNode for tests into the user's cache directory: the
# jars of Hadoop 2.7.3 from PySpark's source archive (211 MB, on PyPI). Where there is a JDK and a
# compiler, also libhdfs, by which pyarrow reaches HDFS, from Pydoop's source archive.
# Needs Java to be of use, not to run. Quick when all is there.
set -euo pipefail

target="${XDG_CACHE_HOME:-$HOME/.cache}/asyncstore-servers/hadoop-2.7.3"
if [ -e "$target/ready" ]; then
  echo "Hadoop 2.7.3: nothing to install."
  exit 0
fi
echo "Hadoop 2.7.3: installing into $target"
rm -rf "$target"
mkdir -p "$target"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"${PYTHON:-python3}" -m venv "$work/venv"
python="$work/venv/bin/python"

# pip asks an archive for its metadata before it hands it out; these are too old for new setuptools.
printf 'pypandoc<1.8\nsetuptools>=66,<70\n' >"$work/constraints.txt"
fetch() {
  local attempt
  for attempt in 1 2 3; do
    if PIP_CONSTRAINT="$work/constraints.txt" PIP_BUILD_CONSTRAINT="$work/constraints.txt" \
      "$python" -m pip download --quiet --disable-pip-version-check --no-cache-dir --no-deps \
      --no-binary "$1" --dest "$work" "$1==$2" </dev/null; then
      return
    fi
    echo "pip failed, attempt $attempt of 3" >&2
    sleep $((attempt * 5))
  done
  return 1
}

fetch pyspark 2.4.8
"$python" - "$work/pyspark-2.4.8.tar.gz" "$target/jars" <<'PYTHON'
import pathlib, re, shutil, sys, tarfile

# What the servers and a client load.
names = (
    "hadoop-(annotations|auth|client|common|hdfs|mapreduce-client-core)|apacheds|api-(asn1|util)"
    "|avro|commons-(beanutils|cli|codec|collections|compress|configuration|digester|httpclient|io"
    "|lang|logging|math3|net)|gson|guava|htrace|jackson-(core|mapper)-asl|javax.servlet-api"
    "|javax.ws.rs-api|jetty|jsr305|leveldbjni|log4j|netty|protobuf|slf4j|snappy-java|xercesImpl"
    "|xmlenc|apache-log4j-extras|jcl-over-slf4j"
)
archive, target = sys.argv[1], pathlib.Path(sys.argv[2])
target.mkdir()
with tarfile.open(archive) as files:
    for member in files:
        name = member.name.rpartition("/")[2]
        if "/deps/jars/" in member.name and re.match(rf"({names})[-\w.]*\.jar$", name):
            with files.extractfile(member) as source, (target / name).open("wb") as copy:
                shutil.copyfileobj(source, copy)
PYTHON

home="${JAVA_HOME:-}"
if [ -z "$home" ] && command -v javac >/dev/null; then
  home=$(dirname "$(dirname "$("$python" -c 'import os, shutil
print(os.path.realpath(shutil.which("javac")))')")")
fi
if [ -e "$home/include/jni.h" ] && command -v cc >/dev/null && [ "$(uname)" = Linux ]; then
  fetch pydoop 2.0.0
  tar -xzf "$work/pydoop-2.0.0.tar.gz" -C "$work"
  (
    cd "$work/pydoop-2.0.0/src/libhdfs"
    cc -shared -fPIC -O2 -fcommon -w -D_GNU_SOURCE \
      -I. -Iinclude -Iinclude/hdfs -Ios/posix -Ios -I"$home/include" -I"$home/include/linux" \
      hdfs.c exception.c jni_helper.c common/htable.c os/posix/*.c \
      -L"$home/lib/server" -ljvm -Wl,-rpath,"$home/lib/server" -lpthread -ldl \
      -o "$target/libhdfs.so"
  )
else
  echo "Hadoop 2.7.3: no JDK or no compiler, so libhdfs is not built; pyarrow is not tested." >&2
fi
touch "$target/ready"
