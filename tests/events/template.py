"""The template as AWS would understand it: its intrinsic functions worked out for given parameters."""

import re
from pathlib import Path

import yaml

PATH = Path(__file__).resolve().parents[2] / "deploy/aws/events.yaml"

# What stands for the account that the stack would be in.
PSEUDO = {"AWS::AccountId": "123456789012", "AWS::Region": "eu-west-1", "AWS::Partition": "aws"}
PSEUDO |= {"AWS::StackName": "kitepool"}

NO_VALUE = object()


class _Loader(yaml.SafeLoader):
    """YAML with `!Ref` and its like as the JSON that they are short for."""


def _tag(loader, suffix, node):
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)
    if suffix == "GetAtt":
        value = value.split(".", 1)
    return {suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}": value}


_Loader.add_multi_constructor("!", _tag)


def read(path: Path = PATH) -> dict:
    """The template as it is written."""
    return yaml.load(path.read_text(), _Loader)


class Stack:
    """The template with parameters, and with ARNs for what it would make."""

    path = PATH

    def __init__(self, **parameters: str):
        self.template = read(self.path)
        self.parameters = {name: value.get("Default") for name, value in self.template["Parameters"].items()}
        unknown = set(parameters) - set(self.parameters)
        if unknown:
            raise ValueError(f"no parameters: {unknown}")
        self.parameters.update(parameters)
        for name, value in self.parameters.items():
            if self.template["Parameters"][name]["Type"] == "CommaDelimitedList":
                self.parameters[name] = value.split(",")
        # As AWS does: what does not match is refused before anything is made.
        for name, value in self.parameters.items():
            pattern = self.template["Parameters"][name].get("AllowedPattern")
            if pattern and not re.fullmatch(pattern, value or ""):
                raise ValueError(f"{name} may not be {value!r}")

    def broken_rules(self) -> "list[str]":
        """What the template says against its parameters."""
        sentences = []
        for rule in self.template["Rules"].values():
            if self.resolve(rule["RuleCondition"]):
                sentences += [a["AssertDescription"] for a in rule["Assertions"] if not self.resolve(a["Assert"])]
        return sentences

    def resources(self) -> dict:
        """Those whose condition holds, worked out."""
        wanted = self.template["Resources"].items()
        return {name: self.resolve(r) for name, r in wanted if "Condition" not in r or self.condition(r["Condition"])}

    def condition(self, name: str) -> bool:
        return self.resolve(self.template["Conditions"][name])

    def resolve(self, value):
        if isinstance(value, list):
            return [item for item in map(self.resolve, value) if item is not NO_VALUE]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            ((function, argument),) = value.items()
            if function == "Ref":
                return self._ref(argument)
            if function == "Condition" and isinstance(argument, str) and argument in self.template["Conditions"]:
                return self.condition(argument)
            if function.startswith("Fn::"):
                return getattr(self, f"_{function[4:].lower()}")(argument)
        # A resource's own condition is a name, and has been looked at. That of a policy's statement is an object.
        kept = {key: item for key, item in value.items() if key != "Condition" or isinstance(item, dict)}
        resolved = {key: self.resolve(item) for key, item in kept.items()}
        return {key: item for key, item in resolved.items() if item is not NO_VALUE}

    def _ref(self, name):
        if name == "AWS::NoValue":
            return NO_VALUE
        for known in (PSEUDO, self.parameters):
            if name in known:
                return known[name]
        # What a bus and everything else is known by is its name.
        return self.parameters["EventSourceName"] if name == "EventBus" else name

    def _getatt(self, path):
        name, attribute = path
        region, account = PSEUDO["AWS::Region"], PSEUDO["AWS::AccountId"]
        if attribute == "QueueName":
            return name
        kinds = {"Rule": f"events:{region}:{account}:rule/{self.parameters.get('EventSourceName')}/{name}"}
        kinds |= {"Role": f"iam::{account}:role/{name}"}
        return "arn:aws:" + kinds.get(name, f"sqs:{region}:{account}:{name}")

    def _sub(self, argument):
        text, more = argument if isinstance(argument, list) else (argument, {})
        more = self.resolve(more)
        return re.sub(r"\$\{([^}]+)\}", lambda found: more.get(found[1]) or self._ref(found[1]), text)

    def _if(self, argument):
        name, yes, no = argument
        return self.resolve(yes if self.condition(name) else no)

    def _equals(self, argument):
        left, right = self.resolve(argument)
        return left == right

    def _not(self, argument):
        return not self.resolve(argument[0])

    def _and(self, argument):
        return all(self.resolve(argument))

    def _join(self, argument):
        separator, parts = argument
        return separator.join(self.resolve(parts))
