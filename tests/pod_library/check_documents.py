"""Holds the documents of the pod library to what they are about. Each test is named by what it holds."""

import re
import unittest
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "pod-library"
NAMES = Path(__file__).with_name("elastic-ci-stack-names.txt")


def definitions() -> "dict[str, dict]":
    return {path.name: yaml.safe_load(path.read_text()) for path in sorted(LIBRARY.glob("*.yaml"))}


class TheRows(unittest.TestCase):
    def setUp(self):
        text = (ROOT / "docs/elastic-ci-stack.md").read_text().split("## Row by row")[1]
        self.rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.+) \|$", text, re.MULTILINE)
        lines = NAMES.read_text().splitlines()
        self.names = [line for line in lines if line and not line.startswith("#")]

    def test_each_parameter_and_variable_of_the_original_has_one_row_and_no_other_has_one(self):
        found = [name for name, _, _ in self.rows]
        self.assertEqual(sorted(found), sorted(self.names))
        self.assertGreater(len(found), 150)

    def test_each_row_says_what_became_of_it_and_where_or_why(self):
        for name, verdict, reason in self.rows:
            self.assertIn(verdict, ("kept", "renamed", "refused"), name)
            self.assertGreater(len(reason), 5, name)

    def test_what_is_kept_is_read_by_the_hooks_or_by_the_agent_itself(self):
        places = [*LIBRARY.glob("images/**/*"), ROOT / "src/pods/contract.rs"]
        source = "\n".join(path.read_text() for path in places if path.is_file())
        for name, verdict, reason in self.rows:
            if verdict == "kept" and "the agent reads it" not in reason:
                self.assertRegex(source, rf"\b{name}\b|{name.removesuffix('_PLUGIN_ENABLED').lower().replace('_', '-')}\b", name)

    def test_a_row_that_points_to_another_points_to_one_that_is_there(self):
        for name, _, reason in self.rows:
            for other in re.findall(r"^as `(\w+)`", reason):
                self.assertIn(other, self.names, name)


class TheDefinitions(unittest.TestCase):
    def test_every_definition_has_a_row_in_the_readme_and_is_named_after_its_file(self):
        readme = (LIBRARY / "README.md").read_text()
        for file, definition in definitions().items():
            self.assertEqual(definition["metadata"]["name"], file.removesuffix(".yaml"))
            self.assertIn(f"[`{file}`]({file})", readme)
        self.assertGreaterEqual(len(definitions()), 5)

    def test_helpers_are_native_sidecars_and_nothing_ends_an_agent_but_its_one_signal(self):
        for file, definition in definitions().items():
            spec = definition["template"]["spec"]
            self.assertEqual([container["name"] for container in spec["containers"]], ["agent"], file)
            (agent,) = spec["containers"]
            self.assertNotIn("lifecycle", agent, file)
            self.assertNotIn("livenessProbe", agent, file)
            self.assertNotIn("terminationGracePeriodSeconds", spec, file)
            self.assertFalse(spec["automountServiceAccountToken"], file)

    def test_every_container_says_what_it_takes_and_drops_its_capabilities_unless_it_says_why_not(self):
        for file, definition in definitions().items():
            spec = definition["template"]["spec"]
            for container in [*spec.get("initContainers", []), *spec["containers"]]:
                where = f"{file}: {container['name']}"
                self.assertIn("memory", container["resources"]["requests"], where)
                self.assertIn("memory", container["resources"]["limits"], where)
                if container["securityContext"].get("privileged"):
                    self.assertEqual(where, "elastic-ci-stack.yaml: dockerd", "the only one")
                else:
                    self.assertEqual(container["securityContext"]["capabilities"]["drop"], ["ALL"], where)
                    self.assertFalse(container["securityContext"]["allowPrivilegeEscalation"], where)

    def test_images_of_others_are_pinned_and_the_agents_are_of_the_tested_version(self):
        version = re.search(r"^require github.com/buildkite/agent/v3 v(\S+)", (ROOT / "tests/agent/go.mod").read_text(), re.MULTILINE)[1]
        for path in [*LIBRARY.glob("*.yaml"), *LIBRARY.glob("buildkit/*.yaml")]:
            for image in re.findall(r"image: (?:&\w+ )?([^*\s]\S+)$", path.read_text(), re.MULTILINE):
                if image.startswith(("kitepool/agent-", "buildkite/agent:")):
                    self.assertIn(f":{version}", image, path.name)
                else:
                    self.assertRegex(image, r"^\S+:\S+@sha256:[0-9a-f]{64}$", path.name)
        dockerfile = (LIBRARY / "images/Dockerfile").read_text()
        bases = re.findall(r"^ARG \w+=(\S+)$", dockerfile, re.MULTILINE)
        self.assertTrue(bases and all(re.search(r"@sha256:[0-9a-f]{64}$", base) for base in bases))
        stages = re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)
        self.assertTrue(all(stage.startswith("${") or stage == "agent" for stage in stages), stages)
        # In each image that is run, the last word on the user is a number that is not root's.
        for stage in dockerfile.split("\nFROM ")[2:]:
            self.assertEqual(re.findall(r"^USER (\S+)", stage, re.MULTILINE)[-1], "1000:1000")

    def test_fargate_takes_what_fargate_can_and_no_other_bears_its_label(self):
        for file, definition in definitions().items():
            template = definition["template"]
            platform = template["metadata"]["labels"].get("platform")
            self.assertEqual(platform == "fargate", file == "fargate.yaml", file)
            if platform == "fargate":
                spec, text = template["spec"], yaml.safe_dump(template)
                for refused in ("hostPath", "hostNetwork", "hostPID", "hostPort", "privileged", "nvidia.com/gpu"):
                    self.assertNotIn(f"{refused}:", text)
                for container in spec["containers"]:
                    self.assertEqual(container["resources"]["requests"], container["resources"]["limits"])


if __name__ == "__main__":
    unittest.main()
