#!/bin/sh
# Installs the MCP clients that the tests drive the server with, at the versions they were written against.
#
#   tests/mcp/install.sh DIR
#
# Afterwards DIR holds `sdk` (a virtual environment with the SDK from PyPI), `node`, `inspector` and `conformance` (from npm);
# AGENTLOOP_TEST_MCP=DIR lets `cargo test mcp::` find them. What is there at its version already costs nothing. Node is
# among them, since the inspector wants a newer one than many machines have. Needs npm and Python 3.10 or newer.
set -eu

[ $# -eq 1 ] || {
    echo "usage: $0 DIR" >&2
    exit 2
}
mkdir -p "$1"
dir=$(cd "$1" && pwd)

fail() {
    echo "install.sh: $1" >&2
    tail -n 20 "$dir/install.log" >&2
    exit 1
}

sdk=$dir/python-mcp-2.3.0
if [ ! -e "$sdk/.installed" ]; then
    rm -rf "$sdk"
    python3 -m venv "$sdk" >"$dir/install.log" 2>&1 || fail "python3 could not make a virtual environment:"
    "$sdk/bin/pip" install --quiet --disable-pip-version-check mcp==2.3.0 >"$dir/install.log" 2>&1 ||
        fail "pip could not install mcp==2.3.0:"
    : >"$sdk/.installed"
fi

npm=$dir/npm-inspector-2.12.0-conformance-0.1.16
if [ ! -e "$npm/.installed" ]; then
    rm -rf "$npm"
    mkdir -p "$npm"
    npm install --prefix "$npm" --no-save --no-audit --no-fund --loglevel=error node@22.23.3 \
        @modelcontextprotocol/inspector@2.12.0 @modelcontextprotocol/conformance@0.1.16 >"$dir/install.log" 2>&1 ||
        fail "npm could not install the inspector:"
    : >"$npm/.installed"
fi

ln -sfn "$sdk" "$dir/sdk"
ln -sfn "$npm/node_modules/.bin/node" "$dir/node"
ln -sfn "$npm/node_modules/.bin/mcp-inspector" "$dir/inspector"
ln -sfn "$npm/node_modules/.bin/conformance" "$dir/conformance"
