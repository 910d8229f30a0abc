#!/usr/bin/env bash
# Make .venv in the checkout and install the package into it, once.
# A stamp of pyproject.toml, constraints.txt and this script says whether that is still true.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '[setup] %s\n' "$*"; }

PYTHON=${PYTHON:-}
if [ -z "$PYTHON" ]; then
  for candidate in python3.11 python3.12 python3.13 python3; do
    if command -v "$candidate" >/dev/null 2>&1 &&
      "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      PYTHON=$candidate
      break
    fi
  done
fi
if [ -z "$PYTHON" ]; then
  say "Python 3.11 or newer is needed; on Debian or Ubuntu: sudo apt-get install python3 python3-venv"
  exit 1
fi

# What Qt's xcb platform, OpenGL by Mesa and a virtual display need.
PACKAGES="libgl1 libegl1 libgl1-mesa-dri libopengl0 libdbus-1-3 libfontconfig1 libglib2.0-0
 libxkbcommon-x11-0 libxcb-cursor0 libxcb-icccm4 libxcb-image0 libxcb-keysyms1
 libxcb-randr0 libxcb-render-util0 libxcb-shape0 libxcb-xinerama0 libxcb-xkb1 xauth xvfb"

missing_packages() {
  command -v dpkg-query >/dev/null 2>&1 || return 0
  for package in $PACKAGES; do
    # Ubuntu 24.04 renamed some libraries with the suffix t64.
    state=$(dpkg-query -W -f '${Status}\n' "$package" "${package}t64" 2>/dev/null || true)
    if ! printf '%s' "$state" | grep -q 'ok installed'; then
      printf '%s ' "$package"
    fi
  done
}

if ! "$PYTHON" -c 'import ensurepip, venv' >/dev/null 2>&1; then
  PACKAGES="$PACKAGES $(basename "$PYTHON")-venv"
fi
absent=$(missing_packages)
if [ -n "$absent" ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    say "installing system libraries: $absent"
    if ! { DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 update -qq &&
      # shellcheck disable=SC2086
      DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends $absent; } \
      >/tmp/lungfm-apt.$$.log 2>&1; then
      say "apt-get failed (log: /tmp/lungfm-apt.$$.log); going on without: tests with windows will skip"
    else
      rm -f /tmp/lungfm-apt.$$.log
    fi
  else
    say "windows and OpenGL need system libraries that are not here; run:"
    say "    sudo apt-get install -y --no-install-recommends $absent"
    say "going on without them: everything but the viewer works"
  fi
fi

stamp=.venv/.lungfm-setup
wanted=$(cat pyproject.toml constraints.txt scripts/setup.sh | sha256sum | cut -d' ' -f1)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && .venv/bin/napari-lungfm-bench --version >/dev/null 2>&1; then
  say "the environment in .venv is up to date"
  exit 0
fi

say "making .venv with $("$PYTHON" --version) (about 3 GB, two to three minutes)"
"$PYTHON" -m venv .venv || {
  say "the venv module does not work; on Debian or Ubuntu: sudo apt-get install python3-venv"
  exit 1
}
# sam2 is built from source and asks for torch while building: without the constraints there too
# it would fetch a second torch. pip 25.3 renamed the variable for builds; both are set.
export PIP_CONSTRAINT="$PWD/constraints.txt" PIP_BUILD_CONSTRAINT="$PWD/constraints.txt"
export SAM2_BUILD_CUDA=0 PIP_DISABLE_PIP_VERSION_CHECK=1
say "installing napari-lungfm with everything it can use"
.venv/bin/python -m pip install --quiet --progress-bar off -e '.[all,dev]'
printf '%s\n' "$wanted" >"$stamp"
say "done"
