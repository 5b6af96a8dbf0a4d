#!/usr/bin/env bash
# Makes the root directories of services' images: deploy/images/services/build.sh DIR SERVICE...
#
# DIR/SERVICE is made of Debian's python with the libraries that it needs, as its security suite has them, of the wheels
# of SERVICE.txt and of this checkout's code; no shell and no package manager is in it. The same checkout and the same
# packages of Debian give the same bytes. What there is in which version is in sbom.cdx.json (CycloneDX) at its top.
# Debian 12; root where a package to build with is missing. What does not change with the code is taken from the cache
# (GPUDEV_SERVICES_CACHE, ~/.cache/gpudev-services) while Debian has no newer versions.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source=$(cd "$here/../../.." && pwd)
into=${1:?Usage: build.sh DIR SERVICE...}
services=("${@:2}")
cache=${GPUDEV_SERVICES_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/gpudev-services}
name="services' images"
# shellcheck source=../debian.sh
. "$here/../debian.sh"

# what python and the wheels link to, and the authorities that TLS believes
DEBIAN=(python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libbz2-1.0 libc6 libcrypt1 libexpat1 libffi8
  libgcc-s1 liblzma5 libssl3 libstdc++6 libuuid1 zlib1g ca-certificates)
PACKAGES=usr/local/lib/python3.11/dist-packages

resolve() {
  "${apt[@]}" download --print-uris "${DEBIAN[@]}" | awk '{print $2, $4}' | sort >"$work/resolved"
}

# Debian's part of every image.
unpack_debian() { # ROOT
  local root=$1 package
  mkdir -p "$root" "$work/apt/archives"
  (cd "$work/apt/archives" && quietly "${apt[@]}" download "${DEBIAN[@]}")
  for package in "$work"/apt/archives/*.deb; do dpkg-deb -x "$package" "$root"; done
  mkdir -p "$root/etc/ssl/certs" "$root/proc" "$root/sys" "$root/dev"
  find "$root/usr/share/ca-certificates" -name '*.crt' -print0 | sort -z | xargs -0 cat >"$root/etc/ssl/certs/ca-certificates.crt"
  install -d "$root/usr/lib/ssl"    # where OpenSSL looks
  ln -s /etc/ssl/certs/ca-certificates.crt "$root/usr/lib/ssl/cert.pem"
  cp "$here/passwd" "$here/group" "$here/nsswitch.conf" "$root/etc/"
  ln -sf python3.11 "$root/usr/bin/python3"
  ln -sf python3.11 "$root/usr/bin/python"
  install -d -m 1777 "$root/tmp"
  # programs and documents that nothing here reads
  find "$root/usr/bin" ! -type d ! -name 'python*' -delete
  rm -rf "$root"/{,usr/}sbin "$root"/usr/share/{doc,man,lintian,doc-base,binfmts,perl5,apps,ca-certificates} "$root"/usr/lib/*/gconv "$root/etc/ld.so.conf.d" \
    "$root"/usr/lib/python3.11/{idlelib,lib2to3,ensurepip,turtledemo,pydoc_data,distutils,tkinter,test}
}

install_wheels() { # ROOT SERVICE
  local root=$1 packages=$1/$PACKAGES
  mkdir -p "$packages"
  quietly python3 -m pip install --disable-pip-version-check --no-compile --no-deps --require-hashes --only-binary :all: \
    --python-version 3.11 --implementation cp --target "$packages" -r "$here/$2.txt"
  rm -rf "$packages/bin"
  find "$packages" -name '*.map' -delete
  find "$packages" -type d \( -name __pycache__ -o -name tests -o -name test \) -prune -exec rm -rf {} +
  # pip leaves the time and the place of the installation in these
  find "$packages" \( -name INSTALLER -o -name REQUESTED -o -name direct_url.json -o -name RECORD \) -delete
  compile "$root" /usr
}

# Bytecode for the files below /usr or a part of it: the file system is read-only where they run. By the image's own
# python, with set hashes, so that the bytes are the same each time and no time stamp is in them.
compile() { # ROOT PATH
  local root=$1 loader libraries
  loader=$(find "$root/lib" "$root/lib64" -maxdepth 2 -name 'ld-linux-*' 2>/dev/null | sort | head -n 1)
  libraries=$(find "$root/lib" "$root/usr/lib" -maxdepth 1 -name '*-linux-gnu' | paste -sd:)
  # test data of no valid syntax is among the wheels' files
  PYTHONHASHSEED=0 PYTHONHOME=$root/usr LC_ALL=C.UTF-8 quietly "$loader" --library-path "$libraries" "$root/usr/bin/python3.11" -S \
    -m compileall -q -s "$root" -p / --invalidation-mode unchecked-hash -x '/(templates)/' "$root$2"
}

add_code() { # ROOT SERVICE
  local packages=$1/$PACKAGES
  (
    cd "$source"
    find shared services/__init__.py "services/$2" -type f ! -path '*/__pycache__/*' -print0 | sort -z |
      tar --null --files-from - -cf - | tar --no-same-owner -C "$packages" -xf -
  )
  printf '%s\n' '#!/usr/bin/python3' 'from shared.admin import main' '' 'main()' >"$1/usr/bin/gpudev-admin"
  chmod 755 "$1/usr/bin/gpudev-admin"
  compile "$1" "/$PACKAGES/shared"
  compile "$1" "/$PACKAGES/services"
}

# Owners, modes and times are no business of who builds.
settle() { # ROOT
  find "$1" -type d -exec chmod 755 {} +
  find "$1" -type f ! -name '*.so*' -exec chmod 644 {} +
  find "$1" -type f -name '*.so*' -exec chmod 755 {} +    # the loader has to be
  find "$1/usr/bin" -type f -exec chmod 755 {} +
  chmod 1777 "$1/tmp"
  if (( EUID == 0 )); then chown -Rh 0:0 "$1"; fi
  find "$1" -exec touch -h -d @0 {} +
}

build() { # SERVICE
  local service=$1 root=$work/$1 built
  built=$(cached "$service")
  if [ ! -d "$built" ]; then
    say "packages of $service"
    cp -a "$work/debian" "$root"
    install_wheels "$root" "$service"
    python3 "$here/../sbom.py" "gpudev-$service" "$work/resolved" "$root/$PACKAGES" >"$root/sbom.cdx.json"
    mkdir -p "$cache"
    rm -rf "$built.$$"
    cp -a "$root" "$built.$$"
    mv -T "$built.$$" "$built" 2>/dev/null || rm -rf "$built.$$"    # another build was faster
    rm -rf "$root"
  fi
  rm -rf "${into:?}/$service"
  mkdir -p "$into"
  cp -a "$built" "$into/$service"
  add_code "$into/$service" "$service"
  settle "$into/$service"
  say "$into/$service is the root of $service ($(du -sh "$into/$service" | cut -f1))"
}

# Where a service's root is kept that has all but the code.
cached() { # SERVICE
  echo "$cache/$1-$(cat "$here/build.sh" "$here/../debian.sh" "$here/../sbom.py" "$here/$1.txt" "$here/passwd" \
    "$here/group" "$here/nsswitch.conf" "$work/resolved" | sha256sum | cut -c1-16)"
}

work=$(mktemp -d)
trap 'jobs -p | xargs -r kill 2>/dev/null; rm -rf "$work"' EXIT
python3 -m pip --version >/dev/null 2>&1 || install_packages python3 python3-pip
prepare_apt
resolve
for service in "${services[@]:?Usage: build.sh DIR SERVICE...}"; do
  [ -d "$(cached "$service")" ] || [ -d "$work/debian" ] || unpack_debian "$work/debian"
done
# at once: most of it waits for the network or compiles on one core
for service in "${services[@]}"; do
  build "$service" &
  builds+=($!)
done
for build in "${builds[@]}"; do wait "$build"; done
