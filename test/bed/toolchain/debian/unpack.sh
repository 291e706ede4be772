#!/bin/sh
# Downloads the Debian packages of packages.txt, with what they need and this machine lacks, and unpacks them into a folder.
# It installs nothing: apt's lists and archives stay in the folder too, and no service starts.
#   unpack.sh FOLDER
set -eu
target=$1
packages=$(cat "$(dirname "$0")/packages.txt")
mkdir -p "$target/apt/lists/partial" "$target/apt/archives/partial" "$target/usr"

apt() {
  apt-get -qq -o Debug::NoLocking=true -o APT::Sandbox::User=root -o Dir::State::Lists="$target/apt/lists" \
    -o Dir::Cache="$target/apt" "$@"
}
apt update
# shellcheck disable=SC2086
apt install --yes --download-only --no-install-recommends $packages
for archive in "$target"/apt/archives/*.deb; do dpkg-deb --extract "$archive" "$target"; done
rm -r "$target/apt"

# Some packages still name the folders that are links to folders of /usr.
for folder in bin sbin lib lib64; do
  [ -d "$target/$folder" ] || continue
  mkdir -p "$target/usr/$folder"
  cp -a "$target/$folder/." "$target/usr/$folder/"
  rm -r "${target:?}/$folder"
done
cp "$(dirname "$0")/packages.txt" "$target"
