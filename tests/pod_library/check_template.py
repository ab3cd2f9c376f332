"""What the linters do not know of deploy/aws/agents.yaml. Each test is named by what it holds."""

import json
import sys
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/events"))

import template  # noqa: E402

ISSUER = "oidc.eks.eu-west-1.amazonaws.com/id/ABC"
REPOSITORY = "arn:aws:ecr:us-east-1:111122223333:repository/*"
LEAST = {"ServiceAccount": "linux", "OidcIssuer": ISSUER}


class Stack(template.Stack):
    path = ROOT / "deploy/aws/agents.yaml"

    def trust(self) -> dict:
        document = self.resources()["Role"]["Properties"]["AssumeRolePolicyDocument"]
        document = json.loads(document) if isinstance(document, str) else document
        (statement,) = document["Statement"]
        return statement

    def statements(self) -> "list[dict]":
        """Of all policies in the role."""
        policies = [r for r in self.resources().values() if r["Type"] == "AWS::IAM::RolePolicy"]
        assert all(policy["Properties"]["RoleName"] == "Role" for policy in policies)
        return [s for policy in policies for s in policy["Properties"]["PolicyDocument"]["Statement"]]

    def rights(self) -> "dict[str, list]":
        rights: "dict[str, list]" = {}
        for statement in self.statements():
            listed = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
            resources = statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]
            for action in listed:
                rights.setdefault(action, []).extend(resources)
        return rights


class TheTrust(unittest.TestCase):
    def test_a_token_must_be_of_the_one_account_and_for_aws(self):
        trust = Stack(**LEAST).trust()
        self.assertEqual(trust["Action"], "sts:AssumeRoleWithWebIdentity")
        self.assertEqual(trust["Principal"], {"Federated": f"arn:aws:iam::123456789012:oidc-provider/{ISSUER}"})
        expected = {f"{ISSUER}:sub": "system:serviceaccount:buildkite:linux", f"{ISSUER}:aud": "sts.amazonaws.com"}
        # Equal, and nothing that is like it.
        self.assertEqual(trust["Condition"], {"StringEquals": expected})

    def test_any_issuer_will_do_and_can_be_made_known(self):
        issuer = {"ServiceAccount": "linux", "OidcIssuer": "keys.example.com", "Audience": "aws"}
        stack = Stack(**issuer, CreateOidcProvider="true")
        self.assertIn("keys.example.com:sub", stack.trust()["Condition"]["StringEquals"])
        provider = stack.resources()["OidcProvider"]
        self.assertEqual(provider["Properties"], {"Url": "https://keys.example.com", "ClientIdList": ["aws"]})
        self.assertEqual(provider["DeletionPolicy"], "Retain")
        self.assertNotIn("OidcProvider", Stack(**issuer).resources())
        for wrong in ("https://keys.example.com", "keys.example.com/", "keys example"):
            with self.assertRaises(ValueError):
                Stack(ServiceAccount="linux", OidcIssuer=wrong)

    def test_pod_identity_is_for_one_account_in_one_namespace_of_one_cluster(self):
        stack = Stack(ServiceAccount="linux", Trust="pod-identity", ClusterName="ci")
        trust = stack.trust()
        self.assertEqual(trust["Principal"], {"Service": "pods.eks.amazonaws.com"})
        expected = {"kubernetes-namespace": "buildkite", "kubernetes-service-account": "linux", "eks-cluster-name": "ci"}
        self.assertEqual(trust["Condition"], {"StringEquals": {f"aws:RequestTag/{k}": v for k, v in expected.items()}})
        association = stack.resources()["Association"]["Properties"]
        self.assertEqual(association["RoleArn"], "arn:aws:iam::123456789012:role/Role")
        self.assertEqual([association[name] for name in ("ClusterName", "Namespace", "ServiceAccount")], ["ci", "buildkite", "linux"])
        self.assertNotIn("Association", Stack(**LEAST).resources())

    def test_parameters_that_contradict_each_other_are_refused_with_a_sentence(self):
        for parameters in (
            {"ServiceAccount": "linux"},
            {"ServiceAccount": "linux", "Trust": "pod-identity"},
            {"ServiceAccount": "linux", "Trust": "pod-identity", "ClusterName": "ci", "CreateOidcProvider": "true"},
            {**LEAST, "SecretsBucket": "secrets"},
            {**LEAST, "EcrAccess": "pull"},
            {**LEAST, "EcrAccess": "push", "EcrPullRepositories": REPOSITORY},
        ):
            self.assertEqual(len(Stack(**parameters).broken_rules()), 1, parameters)
        self.assertEqual(Stack(**LEAST).broken_rules(), [])


class TheRights(unittest.TestCase):
    def test_without_parameters_it_may_do_nothing(self):
        self.assertEqual(Stack(**LEAST).rights(), {})
        self.assertNotIn("ManagedPolicyArns", Stack(**LEAST).resources()["Role"]["Properties"])

    def test_secrets_are_those_of_one_folder_and_what_all_share_by_name(self):
        stack = Stack(**LEAST, SecretsBucket="secrets", SecretsPrefix="web", SecretsKeyArn="arn:aws:kms:eu-west-1:111122223333:key/1")
        rights = stack.rights()
        self.assertEqual(set(rights), {"s3:GetObject", "s3:ListBucket", "kms:Decrypt"})
        hooks = (ROOT / "pod-library/images/elastic-ci-stack/lib/s3-secrets.bash").read_text()
        shared = {resource.rsplit("/", 1)[1] for resource in rights["s3:GetObject"]} - {"*"}
        self.assertEqual(len(shared), 5)
        self.assertEqual({name for name in shared if name not in hooks}, set(), "what the hooks ask for")
        self.assertIn("arn:aws:s3:::secrets/web/*", rights["s3:GetObject"])
        self.assertNotIn("arn:aws:s3:::secrets/*", rights["s3:GetObject"])
        (listing,) = [s for s in stack.statements() if s["Action"] == "s3:ListBucket"]
        self.assertEqual(listing["Condition"], {"StringLike": {"s3:prefix": "web/*"}})
        (decrypt,) = [s for s in stack.statements() if s["Action"] == "kms:Decrypt"]
        self.assertEqual(decrypt["Resource"], "arn:aws:kms:eu-west-1:111122223333:key/1", "one key")
        self.assertIn("kms:ViaService", decrypt["Condition"]["StringLike"])
        own = Stack(**LEAST, SecretsBucket="secrets", SecretsPrefix="web", SharedSecrets="false").rights()
        self.assertEqual(own["s3:GetObject"], ["arn:aws:s3:::secrets/web/*"])
        self.assertNotIn("kms:Decrypt", own)

    def test_a_prefix_that_is_the_whole_bucket_is_refused(self):
        for prefix in ("*", "web/", "/*"):
            with self.assertRaises(ValueError):
                Stack(**LEAST, SecretsBucket="secrets", SecretsPrefix=prefix)

    def test_pulling_is_not_pushing_and_pushing_is_to_named_repositories(self):
        pull = Stack(**LEAST, EcrAccess="pull", EcrPullRepositories=REPOSITORY).rights()
        self.assertFalse({action for action in pull if "Put" in action or "Upload" in action})
        target = "arn:aws:ecr:us-east-1:111122223333:repository/web"
        push = Stack(**LEAST, EcrAccess="push", EcrPullRepositories=REPOSITORY, EcrPushRepositories=target).rights()
        self.assertEqual(push["ecr:PutImage"], [target])
        starred = {action for rights in (pull, push) for action, resources in rights.items() if "*" in resources}
        self.assertEqual(starred, {"ecr:GetAuthorizationToken"}, "which IAM checks on no resource")

    def test_no_right_is_one_over_rights_or_over_the_cluster(self):
        everything = {"SecretsBucket": "secrets", "SecretsPrefix": "web", "EcrAccess": "push", "EcrPullRepositories": REPOSITORY}
        everything |= {"EcrPushRepositories": REPOSITORY, "ArtifactsBucket": "artifacts"}
        actions = set(Stack(**LEAST, **everything).rights())
        self.assertEqual({action.split(":")[0] for action in actions}, {"s3", "ecr"})
        self.assertFalse([action for action in actions if "*" in action])
        self.assertEqual(Stack(**LEAST, ArtifactsBucket="artifacts").rights()["s3:PutObject"], ["arn:aws:s3:::artifacts/*"])


if __name__ == "__main__":
    unittest.main()
