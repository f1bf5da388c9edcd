"""Drives the server with the Python SDK: every tool, both modes, questions, tasks, resources.

    drive.py PROGRAM legacy|2026-07-28

Runs in the repository that is to be served. Whatever is wrong ends it with a traceback. The SDK itself holds every
structured result against the tool's output schema.
"""

import asyncio
import json
import os
import subprocess
import sys
from typing import Literal

import mcp_types as types
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.extension import ClientExtension, ResultClaim

PROGRAM, MODE = sys.argv[1:]
NEWEST = MODE != "legacy"
SERVER = StdioServerParameters(command=PROGRAM, args=["mcp"], cwd=os.getcwd(), env=dict(os.environ))


async def call(client, tool, **arguments):
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result
    assert json.loads(result.content[0].text) == result.structured_content
    return result.structured_content


async def refused(client, tool, **arguments):
    result = await client.call_tool(tool, arguments)
    assert result.is_error, result
    return result.content[0].text


def git(*arguments):
    subprocess.run(["git", *arguments], check=True)


async def every_tool():
    async with Client(SERVER, mode=MODE) as client:
        assert client.protocol_version == (MODE if NEWEST else "2025-11-25"), client.protocol_version
        tools = [tool.name for tool in (await client.list_tools()).tools]
        assert len(tools) == 13, tools

        started = await call(client, "orchestrate", goal="say hello", backend="mock", verify_commands=["true"])
        run = started["run_id"]
        assert (await call(client, "orchestrate_status", run_id=run))["run_id"] == run

        # By cursor, while it is written: every event once, in order, over small pages.
        seen, cursor = [], 0
        while True:
            page = await call(client, "orchestrate_tail", run_id=run, cursor=cursor, limit=3)
            assert len(page["events"]) <= 3
            seen += [event["seq"] for event in page["events"]]
            cursor = page["cursor"]
            if not page["more"] and not page["running"]:
                break
        rest = await call(client, "orchestrate_tail", run_id=run, cursor=cursor)
        seen += [event["seq"] for event in rest["events"]]
        assert seen == list(range(1, len(seen) + 1)) and len(seen) > 20, seen

        done = await call(client, "orchestrate_result", run_id=run, wait=True, timeout=60)
        assert done["status"] == "completed", done
        output = await call(client, "orchestrate_output", run_id=run, iteration=1, subgoal="build")
        assert output["text"].startswith("Worked on 'build'."), output
        preview = await call(client, "orchestrate_merge_preview", run_id=run)
        assert preview["conflicts"] == [] and preview["files"], preview
        assert any(listed["run_id"] == run for listed in (await call(client, "orchestrate_list"))["runs"])
        assert any(backend["name"] == "mock" for backend in (await call(client, "list_backends"))["backends"])
        assert (await call(client, "doctor"))["checks"]
        assert "argument 'max_iterations'" in await refused(client, "orchestrate", goal="x", max_iterations=0)
        try:
            await client.call_tool("no_such_tool", {})
            raise AssertionError("an unknown tool was called")
        except MCPError as error:
            assert "no_such_tool" in error.message, error

        git("config", "agentloop.mock.delay", "300")
        run = (await call(client, "orchestrate", goal="a long goal", backend="mock"))["run_id"]
        assert (await call(client, "orchestrate_steer", run_id=run, guidance="keep it short"))["running"]
        assert (await call(client, "orchestrate_cancel", run_id=run))["state"] == "cancelled"
        git("config", "agentloop.mock.delay", "20")
        assert (await call(client, "orchestrate_continue", run_id=run, detach=False))["status"] == "completed"


async def waiting():
    async with Client(SERVER, mode=MODE) as client:
        told = []

        async def progress(done, total, message):
            told.append((done, total, message))

        result = await client.call_tool(
            "orchestrate", {"goal": "wait for me", "backend": "mock", "detach": False}, progress_callback=progress
        )
        assert result.structured_content["status"] == "completed", result
        values = [done for done, _, _ in told]
        assert values == sorted(set(values)) and len({total for _, total, _ in told}) == 1, told
        assert "iteration 2/4" in " ".join(message for _, _, message in told), told

        # A wait that is given up: the run goes on.
        git("config", "agentloop.mock.delay", "100")
        arguments = {"goal": "given up", "backend": "mock", "detach": False}
        try:
            await client.call_tool("orchestrate", arguments, read_timeout_seconds=0.3)
            raise AssertionError("it should have taken longer")
        except MCPError:
            pass
        git("config", "agentloop.mock.delay", "20")
        newest = (await call(client, "orchestrate_list"))["runs"][0]
        assert newest["goal"] == "given up" and newest["running"], newest
        done = await call(client, "orchestrate_result", run_id=newest["run_id"], wait=True)
        assert done["status"] == "completed", done


async def questions():
    git("config", "agentloop.mock.questions", '["Which framework?", "Which database?"]')
    async with Client(SERVER, mode=MODE) as client:
        asked = await call(client, "orchestrate", goal="an API", backend="mock", detach=False)
        assert asked["status"] == "needs_input" and len(asked["questions"]) == 2, asked
        few = await refused(client, "orchestrate_resume", token=asked["token"], answers=["axum"])
        assert "2 questions" in few, few
        answers = ["axum", "SQLite"]
        done = await call(client, "orchestrate_resume", token=asked["token"], answers=answers, detach=False)
        assert done["status"] == "completed" and done["run_id"] == asked["run_id"], done
        assert "waits with no questions" in await refused(
            client, "orchestrate_resume", token=asked["token"], answers=answers
        )

    async def person(_context, params):
        assert "Which framework?" in params.message
        return types.ElicitResult(action="accept", content={"answer_1": "axum", "answer_2": "SQLite"})

    async with Client(SERVER, mode=MODE, elicitation_callback=person) as client:
        done = await call(client, "orchestrate", goal="an API again", backend="mock", detach=False)
        assert done["status"] == "completed", done
    git("config", "--unset", "agentloop.mock.questions")


class TaskHandle(types.Result):
    result_type: Literal["task"]
    task_id: str


class GetTask(types.Request[dict, Literal["tasks/get"]]):
    method: Literal["tasks/get"] = "tasks/get"
    params: dict


class TaskState(types.Result):
    status: str
    poll_interval_ms: int
    result: dict | None = None


class Tasks(ClientExtension):
    identifier = "io.modelcontextprotocol/tasks"

    def __init__(self):
        self.states = []

    async def finish(self, handle, context):
        while True:
            state = await context.session.send_request(GetTask(params={"taskId": handle.task_id}), TaskState)
            self.states.append(state.status)
            if state.status not in ("working", "input_required"):
                return types.CallToolResult.model_validate(state.result, by_name=False)
            await asyncio.sleep(min(state.poll_interval_ms, 50) / 1000)

    def claims(self):
        return [ResultClaim(result_type="task", model=TaskHandle, resolve=self.finish)]


async def tasks():
    extension = Tasks()
    async with Client(SERVER, mode=MODE, extensions=[extension]) as client:
        done = await call(client, "orchestrate", goal="as a task", backend="mock", detach=False)
        assert done["status"] == "completed", done
    assert not NEWEST or (extension.states[0] == "working" and extension.states[-1] == "completed"), extension.states


async def resources():
    heard = asyncio.Queue()

    async def message(received):
        if isinstance(received, types.ResourceUpdatedNotification):
            heard.put_nowait(str(received.params.uri))

    async with Client(SERVER, mode=MODE, message_handler=message) as client:
        listed = (await client.list_resources()).resources
        uri = str(listed[0].uri)
        run = uri.removeprefix("agentloop://run/")
        read = (await client.read_resource(uri)).contents[0].text
        assert json.loads(read)["run_id"] == run
        events = (await client.read_resource(uri + "/events")).contents[0].text.splitlines()
        assert [json.loads(event)["seq"] for event in events] == list(range(1, len(events) + 1))
        assert "+++ b/out/build.txt" in (await client.read_resource(uri + "/diff")).contents[0].text
        assert (await client.read_resource(uri + "/output/1/build")).contents[0].text.startswith("Worked on")
        template = (await client.list_resource_templates()).resource_templates[0].uri_template
        reference = types.ResourceTemplateReference(uri=template)
        found = await client.complete(reference, {"name": "run_id", "value": run[:4]})
        assert run in found.completion.values, found
        try:
            await client.read_resource("agentloop://run/no-such-000000")
            raise AssertionError("there is no such resource")
        except MCPError:
            pass

        started = await call(client, "orchestrate", goal="watch me", backend="mock")
        uri = "agentloop://run/" + started["run_id"]
        if NEWEST:
            async with client.listen(resource_subscriptions=[uri], resources_list_changed=True) as changes:
                async for change in changes:
                    if getattr(change, "uri", None) == uri:
                        break
        else:
            await client.subscribe_resource(uri)
            assert await asyncio.wait_for(heard.get(), 30) == uri
            await client.unsubscribe_resource(uri)
        # The caller looks at the repository next: no run may still be writing to it.
        ended = await call(client, "orchestrate_result", run_id=started["run_id"], wait=True)
        assert ended["status"] == "completed", ended


async def main():
    git("config", "agentloop.mock.edit", "out/{subgoal}.txt={iteration}")
    git("config", "agentloop.mock.delay", "20")
    for part in (every_tool, waiting, questions, tasks, resources):
        await asyncio.wait_for(part(), 100)
        print(part.__name__, "ok", flush=True)


asyncio.run(main())
