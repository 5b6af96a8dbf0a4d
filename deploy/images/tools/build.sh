#!/usr/bin/env bash
# Makes the root directory of the tools image: deploy/images/tools/build.sh DIR
#
# Out of this folder, Debian's source packages of dropbear and openssh, Debian's busybox and python, all as its security
# suite has them, and the wheels of jupyter.txt. What there is in which version is in DIR/sbom.cdx.json (CycloneDX).
# Debian 12, amd64; root for the packages that it builds with. What was built once is taken from the cache
# (GPUDEV_TOOLS_CACHE, ~/.cache/gpudev-tools) until it would become something else: the versions that Debian has now are
# part of its name.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
into=${1:?Usage: build.sh DIR}
cache=${GPUDEV_TOOLS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/gpudev-tools}
PACKAGES=(bzip2 dpkg-dev gcc make musl-tools patch patchelf xz-utils)
SOURCES=(dropbear openssh)
# what Debian's python links to, and what wheels expect of a system
PYTHON=(python3.11 python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libbz2-1.0 libc6 libcrypt1 libdb5.3 libexpat1
  libffi8 libgcc-s1 liblzma5 libncursesw6 libreadline8 libsqlite3-0 libssl3 libstdc++6 libtinfo6 libuuid1 zlib1g)
PREFIX=/gpudev/jupyter

name="tools image"
# shellcheck source=../debian.sh
. "$here/../debian.sh"

# What Debian has now, one line a file: its name, which holds the version, and its checksum.
resolve() {
  {
    "${apt[@]}" download --print-uris "${PYTHON[@]}" busybox-static
    "${apt[@]}" source --print-uris --download-only "${SOURCES[@]}"
  } | awk '{print $2, $4}' | sort >"$work/resolved"
  # linked into every program here, and not fetched
  dpkg-query -W -f '${Package}_${Version}_${Architecture}.deb installed\n' musl-dev >>"$work/resolved"
}

fetch_source() { # PACKAGE FOLDER
  mkdir -p "$work/source/$1"
  (cd "$work/source/$1" && quietly "${apt[@]}" source --download-only "$1" &&
    quietly dpkg-source --no-check -x ./*.dsc "$work/$2")
}

build_gpudev() { # FILE
  quietly musl-gcc -std=c17 -D_GNU_SOURCE -Os -static -s -Wall -Wextra -Wshadow -Wconversion -Wno-format-truncation \
    -Werror "$here"/src/*.c -o "$1"
}

build_passwd() {
  quietly musl-gcc -std=c17 -D_GNU_SOURCE -Os -Wall -Wextra -Wno-format-truncation -Werror -r \
    "$here/dropbear/passwd.c" "$here/src/user.c" -o "$work/passwd.o"
}

build_dropbear() {
  local off=(zlib pam syslog lastlog utmp utmpx wtmp wtmpx pututline pututxline loginfunc)
  fetch_source dropbear dropbear
  cd "$work/dropbear"
  quietly patch -p1 <"$here/dropbear/gpudev.patch"
  cp "$here/dropbear/localoptions.h" .
  quietly ./configure --host=x86_64-linux-musl CC=musl-gcc --enable-static --enable-bundled-libtom \
    "${off[@]/#/--disable-}" CFLAGS="-Os"
  quietly make -j"$(nproc)" PROGRAMS="dropbear dropbearkey" STATIC=1 LIBS="$work/passwd.o"
  strip dropbear dropbearkey
  cp dropbear dropbearkey "$bin"
}

fetch_busybox() {
  mkdir -p "$work/busybox"
  cd "$work/busybox"
  quietly "${apt[@]}" download busybox-static
  dpkg-deb -x ./*.deb .
  cp bin/busybox "$bin/busybox"
  ln -s busybox "$bin/sh"
}

build_sftp_server() {
  fetch_source openssh openssh
  cd "$work/openssh"
  touch configure config.h.in  # Debian's patches to configure.ac are about parts that are not built here
  quietly ./configure --host=x86_64-linux-musl CC=musl-gcc --without-openssl --without-zlib --without-pie \
    CFLAGS="-Os" LDFLAGS="-static"
  quietly make -j"$(nproc)" sftp-server LIBS="$work/passwd.o"
  strip sftp-server
  cp sftp-server "$bin"
}

# Debian's python with a loader and libraries of its own, so that it runs in any root, and JupyterLab's wheels.
bundle_jupyter() {
  local tree=$work/jupyter root=$work/python packages
  packages=$tree/lib/python3/dist-packages
  mkdir -p "$tree/bin" "$packages" "$root"
  cd "$work/apt/archives"
  quietly "${apt[@]}" download "${PYTHON[@]}"
  for package in ./*.deb; do dpkg-deb -x "$package" "$root"; done
  cp -a "$root/usr/lib/python3.11" "$tree/lib/"
  find "$root/lib/x86_64-linux-gnu" "$root/usr/lib/x86_64-linux-gnu" -maxdepth 1 -name '*.so*' -exec cp -a {} "$tree/lib/" \;
  cp "$root/usr/bin/python3.11" "$tree/bin/python3"
  patchelf --set-interpreter "$PREFIX/lib/ld-linux-x86-64.so.2" --force-rpath --set-rpath "$PREFIX/lib" "$tree/bin/python3"
  ln -s python3 "$tree/bin/python3.11"
  quietly python3 -m pip install --disable-pip-version-check --no-compile --require-hashes --only-binary :all: --python-version 3.11 \
    --implementation cp --target "$packages" -r "$here/jupyter.txt"
  for part in share etc; do
    if [ -d "$packages/$part" ]; then mv "$packages/$part" "$tree/$part"; fi
  done
  rm -rf "$packages/bin" "$tree"/lib/python3.11/{test,idlelib,lib2to3,ensurepip,turtledemo,sitecustomize.py}
  find "$tree" -name '*.map' -delete
  find "$tree" -type d \( -name __pycache__ -o -name tests \) -prune -exec rm -rf {} +
  # a start from sources takes seconds more, and who started it may not be able to write
  quietly "$tree/lib/ld-linux-x86-64.so.2" --library-path "$tree/lib" "$tree/bin/python3" -m compileall -q \
    --invalidation-mode unchecked-hash -x '/(lib2to3|templates)/' "$tree/lib"
  # notebooks ignore what the image says to its own python; their folder stays on the path
  mkdir -p "$tree/share/jupyter/kernels/python3" "$tree/share/jupyter/kernels/image"
  cat >"$tree/share/jupyter/kernels/python3/kernel.json" <<KERNEL
{"argv": ["$PREFIX/bin/python3", "-E", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
 "display_name": "Python 3 (GPU Dev)", "language": "python"}
KERNEL
  tar --sort=name --owner=0 --group=0 -C "$tree" -cf - bin etc lib share | gzip -6 >"$image/jupyter.tar.gz"
}

build() {
  image=$work/root/gpudev-tools
  bin=$image/bin
  mkdir -p "$bin"
  say "building the SSH server"
  build_passwd
  build_dropbear
  build_sftp_server
  fetch_busybox
  say "bundling JupyterLab"
  bundle_jupyter
  python3 "$here/../sbom.py" gpudev-tools "$work/resolved" "$work/jupyter/lib/python3/dist-packages" >"$work/root/sbom.cdx.json"
  mkdir -p "$cache"
  rm -rf "$built.new"
  cp -a "$work/root" "$built.new"
  mv -T "$built.new" "$built"
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
install_packages "${PACKAGES[@]}"
prepare_apt
resolve
# all but the program, which takes a second
built=$cache/$(cd "$here" && cat build.sh ../debian.sh ../sbom.py jupyter.txt dropbear/* src/gpudev.h src/user.c "$work/resolved" | sha256sum | cut -c1-16)
[ -d "$built" ] || build
mkdir -p "$into"
cp -a "$built/." "$into"
build_gpudev "$into/gpudev-tools/bin/gpudev"
say "$into is the image's root ($(du -sh "$into" | cut -f1))"
