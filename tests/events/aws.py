"""Simulated: EventBridge and SQS by moto, with what the template makes of them, and the poller between queue and function."""

import json
import os
import subprocess
import sys
from pathlib import Path

import boto3
from kubernetes_api import eventually
from sandbox import Sandbox
from template import Stack

REGION = "eu-west-1"
SOURCE = "aws.partner/buildkite.com/acme/0106-187c-12cd4fe"


class Aws:
    """moto, with what the template makes of a bus and its queues."""

    def __init__(self, folder: Path, stack: Stack):
        with (folder / "moto.log").open("w") as log:
            command = [Path(sys.executable).parent / "moto_server", "--host", "127.0.0.1", "--port", "0"]
            unbuffered = {**os.environ, "PYTHONUNBUFFERED": "1"}
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=unbuffered)

        def address():
            found = [word for word in (folder / "moto.log").read_text().split() if word.startswith("http://127.0.0.1:")]
            return found[0].rstrip("/") if found else None

        self.address = eventually(address, 60)
        keys = {"aws_access_key_id": "123456789012", "aws_secret_access_key": "x", "region_name": REGION}
        self.events = boto3.client("events", endpoint_url=self.address, **keys)
        self.sqs = boto3.client("sqs", endpoint_url=self.address, **keys)
        self.resources = {name: resource["Properties"] for name, resource in stack.resources().items()}
        self.queues, self.hidden = {}, []
        for name in ("DeadLetters", "Queue"):
            wanted = self.resources[name]
            redrive = wanted.get("RedrivePolicy")
            attributes = {"VisibilityTimeout": str(wanted.get("VisibilityTimeout", 30))}
            attributes["MessageRetentionPeriod"] = str(wanted["MessageRetentionPeriod"])
            attributes |= {"RedrivePolicy": json.dumps(redrive)} if redrive else {}
            self.queues[name] = self.sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
        # moto takes a name with slashes for an ARN and looks for its last part only. So the bus has that name here; the
        # rule and the events name it as on AWS.
        assert self.resources["EventBus"] == {"Name": SOURCE, "EventSourceName": SOURCE}
        self.events.create_event_bus(Name=SOURCE.rsplit("/", 1)[1])
        self.set_rule(stack)
        rule = self.resources["Rule"]
        (target,) = rule["Targets"]
        targets = [{"Id": target["Id"], "Arn": target["Arn"]}]
        done = self.events.put_targets(Rule="Rule", EventBusName=SOURCE, Targets=targets)
        assert done["FailedEntryCount"] == 0, done

    def set_rule(self, stack: Stack):
        """Lets through what the rule of this stack does."""
        pattern = stack.resources()["Rule"]["Properties"]["EventPattern"]
        self.events.put_rule(Name="Rule", EventBusName=SOURCE, EventPattern=json.dumps(pattern))

    def put(self, *details: dict, kind: str = "Job Scheduled"):
        for start in range(0, len(details), 10):
            entries = [
                {"EventBusName": SOURCE, "Source": SOURCE, "DetailType": kind, "Detail": json.dumps(detail)}
                for detail in details[start : start + 10]
            ]
            assert self.events.put_events(Entries=entries)["FailedEntryCount"] == 0

    def depth(self, name: str) -> int:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        attributes = self.sqs.get_queue_attributes(QueueUrl=self.queues[name], AttributeNames=names)["Attributes"]
        return sum(int(value) for value in attributes.values())

    def purge(self):
        self.again()
        for url in self.queues.values():
            while messages := self.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
                for message in messages:
                    self.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])

    def poll(self, sandbox: Sandbox) -> "list[dict]":
        """Plays the event source mapping until the queue has nothing visible: a line of log for each invocation. What has to
        come again stays hidden, as it would for its visibility timeout; `again` shortens that."""
        url, lines = self.queues["Queue"], []
        size = self.resources["Mapping"]["BatchSize"]
        while True:
            received = self.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=size, AttributeNames=["All"])
            messages = received.get("Messages", [])
            if not messages:
                return lines
            always = {"messageAttributes": {}, "eventSource": "aws:sqs", "awsRegion": REGION}
            names = {"messageId": "MessageId", "receiptHandle": "ReceiptHandle", "body": "Body", "attributes": "Attributes"}
            records = [{ours: message[theirs] for ours, theirs in names.items()} | always for message in messages]
            answer, line, _ = sandbox.invoke({"Records": records})
            lines.append(line)
            # Strictly as Lambda reads it: anything else than a list of known names means that all of it failed.
            assert set(answer) == {"batchItemFailures"}, answer
            failed = {failure["itemIdentifier"] for failure in answer["batchItemFailures"]}
            assert failed <= {m["MessageId"] for m in messages}
            self.hidden += [m for m in messages if m["MessageId"] in failed]
            for message in messages:
                if message["MessageId"] not in failed:
                    self.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])

    def again(self):
        """Ends the visibility timeout of what has failed."""
        for message in self.hidden:
            handle = message["ReceiptHandle"]
            self.sqs.change_message_visibility(QueueUrl=self.queues["Queue"], ReceiptHandle=handle, VisibilityTimeout=0)
        self.hidden = []

    def close(self):
        self.process.kill()
        self.process.wait()
