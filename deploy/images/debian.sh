# shellcheck shell=bash
# Sourced by the scripts that make images' roots: Debian 12's packages as its security suite has them now.
# The script sets `name` (for messages) and `work` (a folder of its own) first.

say() { echo "$name: [$SECONDS s] $*" >&2; }
die() { say "$*"; exit 1; }

# Run a command; its output is shown only when it fails.
quietly() {
  local log=$work/log.$BASHPID
  "$@" >"$log" 2>&1 || { tail -n 40 "$log" >&2; die "failed: $*"; }
}

install_packages() { # PACKAGE...
  local missing=() package
  for package in "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
  done
  (( ${#missing[@]} )) || return 0
  (( EUID == 0 )) || die "these packages are needed: ${missing[*]}"
  say "installing ${missing[*]}"
  quietly apt-get -qq update
  quietly apt-get -qq install -y --no-install-recommends "${missing[@]}"
}

# Debian 12 with its updates, as this machine's apt knows it but for what is installed, with its sources, in lists of our
# own. From then on "${apt[@]}" is apt-get on them.
prepare_apt() {
  local key=/usr/share/keyrings/debian-archive-keyring.gpg
  mkdir -p "$work/apt/lists/partial" "$work/apt/archives/partial"
  : >"$work/apt/status"
  [ -n "$(apt-get indextargets 'Codename: bookworm-security' 2>/dev/null)" ] || quietly apt-get -qq update
  # shellcheck disable=SC2016  # apt's own variables
  apt-get indextargets --format '$(SITE) $(CODENAME)' 'Created-By: Packages' 'Origin: Debian' 'Component: main' |
    sort -u | while read -r site suite; do
      case $suite in
        bookworm | bookworm-updates | bookworm-security)
          printf '%s [signed-by=%s] %s %s main\n' deb "$key" "$site" "$suite" deb-src "$key" "$site" "$suite" ;;
      esac
    done >"$work/apt/sources.list"
  for suite in bookworm bookworm-security; do
    grep -q " $suite main" "$work/apt/sources.list" || die "apt knows no suite $suite here"
  done
  apt=(apt-get -qq -o "Dir::Etc::SourceList=$work/apt/sources.list" -o Dir::Etc::SourceParts=-
    -o "Dir::State::Lists=$work/apt/lists" -o "Dir::State::status=$work/apt/status" -o "Dir::Cache=$work/apt"
    -o APT::Sandbox::User=root)
  quietly "${apt[@]}" update
}
