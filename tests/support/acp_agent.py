"""An agent that speaks the Agent Client Protocol as a test scripts it: the test's own lines come after these."""

import json
import os
import sys
import time


def send(**message):
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def read():
    """The next message; without one the agent leaves, as agents do when their input ends."""
    line = sys.stdin.readline()
    if not line:
        sys.exit(0)
    return json.loads(line)


def expect(method):
    message = read()
    assert message["method"] == method, message
    return message


def reply(message, result):
    send(id=message["id"], result=result)


def fail(message, code, words, **more):
    send(id=message["id"], error={"code": code, "message": words, **more})


def update(what, /, **more):
    send(method="session/update", params={"sessionId": "s1", "update": {"sessionUpdate": what, **more}})


def say(text):
    update("agent_message_chunk", content={"type": "text", "text": text})


def initialize(capabilities={}, logins=[]):
    message = expect("initialize")
    reply(message, {"protocolVersion": 1, "agentCapabilities": capabilities, "authMethods": logins})
    return message["params"]


def open_session(**session):
    message = expect("session/new")
    reply(message, {"sessionId": "s1", **session})
    return message["params"]


def begin():
    """Comes to the prompt, whose message it gives."""
    initialize()
    open_session()
    return expect("session/prompt")


def end(prompt, reason="end_turn", **more):
    reply(prompt, {"stopReason": reason, **more})


def text_of(prompt):
    return "".join(block["text"] for block in prompt["params"]["prompt"])


def ask(kind, path=None, options=("allow_always", "allow_once", "reject_once")):
    """Asks for a permission; the option that was chosen, or 'cancelled'."""
    call = {"toolCallId": "c-" + kind, "title": "do " + kind, "kind": kind}
    if path:
        call["locations"] = [{"path": path}]
    chosen = [{"optionId": "id-" + option, "name": option, "kind": option} for option in options]
    send(id="ask", method="session/request_permission", params={"sessionId": "s1", "toolCall": call, "options": chosen})
    answer = read()
    assert answer["id"] == "ask", answer
    outcome = answer["result"]["outcome"]
    return outcome.get("optionId", outcome["outcome"])


