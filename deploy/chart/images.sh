#!/usr/bin/env bash
# All images of an installation, and how they come into a registry without a way out:
#
#   images.sh list [ARGUMENTS]         one a line; ARGUMENTS are helm's, such as -f values.yaml
#   images.sh copy SOURCE [ARGUMENTS]  copies each from the registry SOURCE to where the values say that it is (skopeo)
#
# Images that users' jobs name are theirs to copy; PostgreSQL, NATS and the ingress have their own charts.
set -euo pipefail
chart=$(cd "$(dirname "${BASH_SOURCE[0]}")/gpudev" && pwd)

list() {
  # of containers, of the tools that jobs get, and of the job that `helm test` runs
  "${HELM:-helm}" template gpudev "$chart" --namespace gpudev-system "$@" | awk '
    /^ *image: /                  { print $2 }
    found                         { print $2; found = 0 }
    /name: GPUDEV_TOOLS_IMAGE$/   { found = 1 }
    /\{name: IMAGE, value: /      { sub(/\}$/, ""); print $NF }
  ' | tr -d '"' | sort -u
}

case "${1:-}" in
list) list "${@:2}" ;;
copy)
  source=${2:?copy FROM which registry?}
  images=$(list "${@:3}")
  for image in $images; do
    skopeo copy --all "docker://${source%/}/${image##*/}" "docker://$image"
  done
  ;;
*)
  sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
  exit 2
  ;;
esac
