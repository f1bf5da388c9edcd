#!/bin/sh
# Installs the real agent command lines at the versions the tests were written against.
#
#   tests/agents/install.sh DIR claude [codex opencode gemini copilot aider]
#
# Afterwards DIR/bin holds one link an agent; AGENTLOOP_TEST_AGENTS=DIR lets `cargo test --test agents` find them.
# An agent that is already there at its version costs nothing. The versions are pinned because the flags and the
# output formats that the presets rely on move between releases. Needs npm (the five from npm) and Python 3.10-3.12
# (aider, from PyPI).
set -eu

usage() {
    echo "usage: $0 DIR claude|codex|opencode|gemini|copilot|aider..." >&2
    exit 2
}

fail() {
    echo "install.sh: $1" >&2
    [ -z "${2-}" ] || tail -n 20 "$2" >&2
    exit 1
}

[ $# -ge 2 ] || usage
mkdir -p "$1/bin"
dir=$(cd "$1" && pwd)
shift

# place NAME VERSION: the agent's own directory; a version's files never mix with another's.
place() { echo "$dir/$1-$2"; }

# link NAME BINARY: proves that the binary starts before anything is told to use it.
link() {
    [ -x "$2" ] || fail "$1: the package brought no executable $2"
    HOME="$dir/home" "$2" --version </dev/null >"$dir/$1.log" 2>&1 || fail "$1: '$2 --version' failed:" "$dir/$1.log"
    ln -sfn "$2" "$dir/bin/$1"
}

# from_npm NAME VERSION PACKAGE
from_npm() {
    at=$(place "$1" "$2")
    if [ ! -e "$at/.installed" ]; then
        command -v npm >/dev/null || fail "$1 comes from npm, and there is no npm on PATH"
        rm -rf "$at"
        mkdir -p "$at" "$dir/home"
        npm install --prefix "$at" --no-save --no-audit --no-fund --loglevel=error "$3@$2" >"$dir/$1.log" 2>&1 ||
            fail "$1: npm could not install $3@$2:" "$dir/$1.log"
        link "$1" "$at/node_modules/.bin/$1"
        : >"$at/.installed"
    fi
    ln -sfn "$at/node_modules/.bin/$1" "$dir/bin/$1"
    echo "$1 $2"
}

# from_pypi NAME VERSION PACKAGE
from_pypi() {
    at=$(place "$1" "$2")
    if [ ! -e "$at/.installed" ]; then
        python=
        for each in python3.12 python3.11 python3.10 python3; do
            if "$each" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' 2>/dev/null; then
                python=$each
                break
            fi
        done
        [ -n "$python" ] || fail "$1 needs Python 3.10, 3.11 or 3.12, and none is on PATH"
        rm -rf "$at"
        mkdir -p "$dir/home"
        "$python" -m venv "$at" >"$dir/$1.log" 2>&1 || fail "$1: could not make a virtual environment:" "$dir/$1.log"
        "$at/bin/pip" install --quiet --disable-pip-version-check "$3==$2" >"$dir/$1.log" 2>&1 ||
            fail "$1: pip could not install $3==$2:" "$dir/$1.log"
        link "$1" "$at/bin/$1"
        : >"$at/.installed"
    fi
    ln -sfn "$at/bin/$1" "$dir/bin/$1"
    echo "$1 $2"
}

for agent in "$@"; do
    case $agent in
    claude) from_npm claude 2.1.330 @anthropic-ai/claude-code ;;
    codex) from_npm codex 0.169.0 @openai/codex ;;
    opencode) from_npm opencode 1.18.33 opencode-ai ;;
    gemini) from_npm gemini 0.61.0 @google/gemini-cli ;;
    copilot) from_npm copilot 1.0.102 @github/copilot ;;
    aider) from_pypi aider 0.86.2 aider-chat ;;
    *) usage ;;
    esac
done
