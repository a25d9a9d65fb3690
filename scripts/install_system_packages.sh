#!/usr/bin/env bash
# Installs what the tests start: PostgreSQL, MariaDB, Ceph's S3 gateway, OpenSSH, vsftpd, nginx,
# Chromium, and, into the user's cache directory, Azurite and Hadoop.
# Debian, Ubuntu: apt, with sudo unless run by root. macOS: Homebrew. Quick when all is there.
set -euo pipefail
cd "$(dirname "$0")"

apt_packages=(
  python3-venv
  postgresql mariadb-server
  radosgw ceph-mon ceph-osd ceph-common
  openssh-server vsftpd nginx-light
  openjdk-17-jdk-headless
  chromium
)

install_with_apt() {
  local as_root=() missing=() package
  for package in "${apt_packages[@]}"; do
    if [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" != installed ]; then
      missing+=("$package")
    fi
  done
  if [ ${#missing[@]} -eq 0 ]; then
    echo "System packages: nothing to install."
    return
  fi
  if [ "$(id -u)" -ne 0 ]; then
    as_root=(sudo)
  fi
  echo "System packages: installing ${missing[*]}"
  local attempt
  for attempt in 1 2 3 4 5; do
    if "${as_root[@]}" apt-get update -q; then
      break
    fi
    # A mirror that is being synchronised answers with mismatched files for a while.
    echo "apt-get update failed, attempt $attempt of 5" >&2
    if [ "$attempt" -eq 5 ]; then
      return 1
    fi
    sleep $((attempt * 5))
  done
  # `env`, because sudo drops variables.
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -q -y --no-install-recommends "${missing[@]}" </dev/null
}

install_with_brew() {
  local package
  for package in postgresql mariadb nginx openjdk@17; do
    if brew list --versions | grep -q "^$package"; then
      echo "System packages: $package is installed."
    else
      brew install "$package"
    fi
  done
  echo "Ceph and vsftpd are not available for macOS: the tests that need them are skipped."
}

if command -v apt-get >/dev/null; then
  install_with_apt
elif command -v brew >/dev/null; then
  install_with_brew
else
  echo "Neither apt-get nor brew is here. Install PostgreSQL, MariaDB, Ceph's radosgw, OpenSSH's" >&2
  echo "sshd, vsftpd, nginx and Java 17 yourself; tests of servers that are missing are skipped." >&2
  exit 1
fi
./install_azurite.sh
./install_hadoop.sh
