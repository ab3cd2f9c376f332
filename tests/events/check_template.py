"""What the linters do not know of deploy/aws/events.yaml. Each test is named by what it holds; several are there because one
of the two projects that this grew from got it wrong (deploy/aws/defects.md)."""

import itertools
import re
import unittest
from pathlib import Path

from template import PATH, Stack, read

ROOT = Path(__file__).resolve().parents[2]
SOURCE = "aws.partner/buildkite.com/acme/0106-187c-12cd4fe"
LEAST = {"EventSourceName": SOURCE, "ClusterName": "ci"}
ENDPOINT = {"ClusterEndpoint": "https://x.eks.amazonaws.com", "ClusterCertificateAuthority": "cGVt"}


def properties(name: str, **parameters: str) -> dict:
    return Stack(**LEAST, **parameters).resources()[name]["Properties"]


def statements(resource: dict) -> "list[dict]":
    """Of the policies in a role."""
    return [s for policy in resource["Policies"] for s in policy["PolicyDocument"]["Statement"]]


class TheRule(unittest.TestCase):
    def test_the_rule_lets_only_scheduled_script_jobs_of_this_account_and_source_through(self):
        pattern = properties("Rule")["EventPattern"]
        expected = {
            "account": ["123456789012"],
            "source": [SOURCE],
            "detail-type": ["Job Scheduled"],
            "detail": {"job": {"type": ["script"]}},
        }
        self.assertEqual(pattern, expected)

    def test_the_queues_are_a_parameter_and_the_default_queue_is_thought_of(self):
        queues = ["queue=linux", "queue=gpu"]
        job = properties("Rule", QueueRules=",".join(queues))["EventPattern"]["detail"]["job"]
        either = [{"agent_query_rules": queues}, {"agent_query_rules": [{"exists": False}]}]
        self.assertEqual(job, {"type": ["script"], "$or": either})
        parameters = {"QueueRules": ",".join(queues), "JobsWithoutRulesToo": "false"}
        job = properties("Rule", **parameters)["EventPattern"]["detail"]["job"]
        self.assertEqual(job, {"type": ["script"], "agent_query_rules": queues})

    def test_the_envelope_is_kept(self):
        (target,) = properties("Rule")["Targets"]
        self.assertFalse({"Input", "InputPath", "InputTransformer"} & set(target))

    def test_what_the_rule_cannot_deliver_is_kept_and_not_tried_for_a_day(self):
        (target,) = properties("Rule")["Targets"]
        self.assertTrue(60 <= target["RetryPolicy"]["MaximumEventAgeInSeconds"] <= 900)
        self.assertIn("DeadLetters", target["DeadLetterConfig"]["Arn"])

    def test_the_bus_can_be_there_already(self):
        self.assertEqual(properties("EventBus"), {"Name": SOURCE, "EventSourceName": SOURCE})
        resources = Stack(**LEAST, CreateEventBus="false").resources()
        self.assertNotIn("EventBus", resources)
        self.assertEqual(resources["Rule"]["Properties"]["EventBusName"], SOURCE)


class TheQueue(unittest.TestCase):
    def test_only_that_rule_may_put_anything_into_a_queue(self):
        resources = Stack(**LEAST).resources()
        rule = f"arn:aws:events:eu-west-1:123456789012:rule/{SOURCE}/Rule"
        for name, queue in (("QueuePolicy", "Queue"), ("DeadLettersPolicy", "DeadLetters")):
            policy = resources[name]["Properties"]
            self.assertEqual(policy["Queues"], [queue])
            allowed = [s for s in policy["PolicyDocument"]["Statement"] if s["Effect"] == "Allow"]
            self.assertEqual(len(allowed), 1)
            self.assertEqual(allowed[0]["Action"], "sqs:SendMessage")
            self.assertEqual(allowed[0]["Principal"], {"Service": "events.amazonaws.com"})
            self.assertEqual(allowed[0]["Resource"], f"arn:aws:sqs:eu-west-1:123456789012:{queue}")
            self.assertEqual(allowed[0]["Condition"]["ArnEquals"], {"aws:SourceArn": rule})

    def test_visibility_is_at_least_six_times_the_functions_time(self):
        self.assertGreaterEqual(properties("Queue")["VisibilityTimeout"], 6 * properties("Function")["Timeout"])

    def test_retention_is_short_and_failures_end_in_a_dead_letter_queue(self):
        queue = properties("Queue")
        attempts = queue["RedrivePolicy"]["maxReceiveCount"] * queue["VisibilityTimeout"]
        self.assertLess(attempts, queue["MessageRetentionPeriod"], "what fails must not vanish before it is moved")
        self.assertLessEqual(queue["MessageRetentionPeriod"], 900, "an old hint is worth nothing")
        self.assertIn("DeadLetters", queue["RedrivePolicy"]["deadLetterTargetArn"])
        self.assertGreater(properties("DeadLetters")["MessageRetentionPeriod"], queue["MessageRetentionPeriod"])

    def test_the_attempts_are_over_about_when_the_controller_would_drop_the_hint(self):
        source = (ROOT / "crates/api/src/scaling.rs").read_text()
        minutes = int(re.search(r'hint_ttl: Span::new\("(\d+)m"\)', source)[1])
        queue = properties("Queue")
        self.assertLessEqual((queue["RedrivePolicy"]["maxReceiveCount"] - 1) * queue["VisibilityTimeout"], minutes * 60)

    def test_both_queues_are_encrypted_and_speak_tls_only(self):
        resources = Stack(**LEAST).resources()
        for name in ("Queue", "DeadLetters"):
            self.assertTrue(resources[name]["Properties"]["SqsManagedSseEnabled"])
            document = resources[f"{'Queue' if name == 'Queue' else name}Policy"]["Properties"]["PolicyDocument"]
            denied = [s for s in document["Statement"] if s["Effect"] == "Deny"]
            self.assertEqual([s["Condition"] for s in denied], [{"Bool": {"aws:SecureTransport": "false"}}])


class TheFunction(unittest.TestCase):
    def test_the_mapping_is_fast_on_a_quiet_queue_bounded_and_answers_for_each_record(self):
        mapping = properties("Mapping")
        self.assertEqual(mapping["MaximumBatchingWindowInSeconds"], 0)
        self.assertLessEqual(mapping["BatchSize"], 10, "more needs a window")
        self.assertEqual(mapping["ScalingConfig"], {"MaximumConcurrency": 2})
        self.assertEqual(mapping["FunctionResponseTypes"], ["ReportBatchItemFailures"])

    def test_no_secret_stands_in_the_functions_environment_or_in_a_parameter(self):
        suspicious = re.compile(r"token|secret|password|key|credential", re.IGNORECASE)
        for name in itertools.chain(properties("Function")["Environment"]["Variables"], read()["Parameters"]):
            self.assertIsNone(suspicious.search(name), name)
        self.assertNotIn("resolve:", PATH.read_text(), "CloudFormation would write a secret out in clear")

    def test_every_variable_of_the_template_is_read_and_every_one_that_is_read_is_written_down(self):
        source = (ROOT / "crates/lambda/src/settings.rs").read_text().split("#[cfg(test)]")[0]
        read_by_function = set(re.findall(r'"(KITEPOOL_[A-Z_]+)"', source))
        set_here = set(properties("Function")["Environment"]["Variables"])
        self.assertEqual(set_here, read_by_function)
        documented = set(re.findall(r"`(KITEPOOL_[A-Z_]+)`", (ROOT / "deploy/aws/README.md").read_text()))
        self.assertEqual(documented, read_by_function)

    def test_it_drops_what_is_older_than_the_queue_keeps(self):
        age = properties("Function")["Environment"]["Variables"]["KITEPOOL_MAX_AGE"]
        self.assertEqual(int(age.removesuffix("m")) * 60, properties("Queue")["MessageRetentionPeriod"])

    def test_memory_is_in_the_unit_that_lambda_takes(self):
        self.assertTrue(128 <= properties("Function")["MemorySize"] <= 1024)

    def test_its_runtime_is_a_living_one(self):
        self.assertEqual(properties("Function")["Runtime"], "provided.al2023")
        self.assertEqual(properties("Function")["Handler"], "bootstrap")
        self.assertEqual(properties("Function")["Architectures"], ["arm64"])

    def test_it_is_in_a_vpc_only_where_the_cluster_is_private(self):
        self.assertNotIn("VpcConfig", properties("Function"))
        private = {"SubnetIds": "subnet-1,subnet-2", "SecurityGroupIds": "sg-1"}
        expected = {"SubnetIds": ["subnet-1", "subnet-2"], "SecurityGroupIds": ["sg-1"]}
        self.assertEqual(properties("Function", **private)["VpcConfig"], expected)
        self.assertIn("VPCAccess", properties("Role", **private)["ManagedPolicyArns"][0])
        self.assertNotIn("ManagedPolicyArns", properties("Role"))


class TheRights(unittest.TestCase):
    def test_each_right_names_the_resource_that_it_is_checked_on(self):
        assume = {"AssumeRoleArn": "arn:aws:iam::210987654321:role/hints", "CreateAccessEntry": "false"}
        elsewhere = {"ClusterRegion": "us-east-1"}
        found = {}
        for statement in statements(properties("Role", **assume, **elsewhere)):
            actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
            found |= {action: statement["Resource"] for action in actions}
        log = "arn:aws:logs:eu-west-1:123456789012:log-group:Log:*"
        queue = "arn:aws:sqs:eu-west-1:123456789012:Queue"
        expected = {
            "sqs:ReceiveMessage": queue,
            "sqs:DeleteMessage": queue,
            "sqs:GetQueueAttributes": queue,
            "logs:CreateLogStream": log,
            "logs:PutLogEvents": log,
            "eks:DescribeCluster": "arn:aws:eks:us-east-1:123456789012:cluster/ci",
            "sts:AssumeRole": "arn:aws:iam::210987654321:role/hints",
        }
        self.assertEqual(found, expected)

    def test_no_right_is_there_that_is_not_needed(self):
        actions = {str(s["Action"]) for s in statements(properties("Role", **ENDPOINT))}
        self.assertFalse([action for action in actions if "eks:" in action or "sts:" in action])

    def test_the_role_is_let_in_by_an_access_entry_with_a_group_and_no_policy(self):
        entry = properties("AccessEntry")
        self.assertEqual(entry["PrincipalArn"], "arn:aws:iam::123456789012:role/Role", "the role of the same stack")
        self.assertEqual(entry["KubernetesGroups"], ["kitepool-hint-writers"])
        self.assertEqual(entry["Type"], "STANDARD")
        self.assertFalse({"AccessPolicies", "Username"} & set(entry))
        for name in ("system:masters", "eks:x", "aws:x", "iam:x"):
            with self.assertRaises(ValueError):
                Stack(**LEAST, WritersGroup=name)

    def test_only_lambda_may_be_the_role(self):
        (statement,) = properties("Role")["AssumeRolePolicyDocument"]["Statement"]
        self.assertEqual(statement["Principal"], {"Service": "lambda.amazonaws.com"})

    def test_parameters_that_contradict_each_other_are_refused_with_a_sentence(self):
        role = "arn:aws:iam::210987654321:role/hints"
        for parameters in (
            {"SubnetIds": "subnet-1"},
            {"ClusterEndpoint": "https://x.eks.amazonaws.com"},
            {"AssumeRoleArn": role},
            {"ClusterRegion": "us-east-1"},
        ):
            self.assertEqual(len(Stack(**LEAST, **parameters).broken_rules()), 1, parameters)
        self.assertEqual(Stack(**LEAST).broken_rules(), [])
        fine = {"AssumeRoleArn": role, "ClusterRegion": "us-east-1", "CreateAccessEntry": "false"}
        self.assertEqual(Stack(**LEAST, **ENDPOINT, **fine).broken_rules(), [])


class TheAlarms(unittest.TestCase):
    def test_dead_letters_age_errors_and_a_full_quota_are_heard_of(self):
        topic = "arn:aws:sns:eu-west-1:123456789012:alarms"
        resources = Stack(**LEAST, AlarmTopicArn=topic).resources()
        alarms = {n: r["Properties"] for n, r in resources.items() if r["Type"] == "AWS::CloudWatch::Alarm"}
        expected = {"DeadLettersAlarm", "AgeAlarm", "ErrorsAlarm", "QuotaAlarm"}
        self.assertEqual(set(alarms), expected)
        self.assertTrue(all(alarm["AlarmActions"] == [topic] for alarm in alarms.values()))
        self.assertLess(alarms["AgeAlarm"]["Threshold"], resources["Queue"]["Properties"]["MessageRetentionPeriod"])
        transformation = resources["QuotaFilter"]["Properties"]["MetricTransformations"][0]
        self.assertEqual(transformation["MetricName"], alarms["QuotaAlarm"]["MetricName"])
        function = (ROOT / "crates/lambda/src/function.rs").read_text()
        self.assertIn('(Reason::Quota, "quota")', function, "the name that the filter looks for")


class TheDefects(unittest.TestCase):
    def test_every_test_that_the_table_of_defects_names_is_there(self):
        table = (ROOT / "deploy/aws/defects.md").read_text()
        names = set(re.findall(r"`([a-z_]{12,})`", table))
        self.assertGreater(len(names), 15)
        folders = ("crates/*/src/**/*.rs", "crates/*/tests/**/*.rs", "tests/events/*.py")
        files = [path for folder in folders for path in ROOT.glob(folder)]
        source = "\n".join(path.read_text() for path in files)
        missing = {name for name in names if not re.search(rf"(fn|def)\s+(test_)?{name}\(", source)}
        self.assertFalse(missing)


if __name__ == "__main__":
    unittest.main()
