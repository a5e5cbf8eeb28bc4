"""The part of JSON Schema 2020-12 that docs/openapi.yaml uses, read strictly.

An object is closed unless it says additionalProperties, an unknown keyword is an error of the
document, and every member that was met is remembered under the place that documents it."""
import base64
import re

ANNOTATIONS = {"description", "default", "example", "title"}
KNOWN = ANNOTATIONS | {"$ref", "type", "const", "enum", "pattern", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "items",
                       "properties", "required", "additionalProperties", "allOf", "anyOf", "oneOf", "format", "contentEncoding"}
TYPES = {"string": str, "object": dict, "array": list, "boolean": bool, "null": type(None)}
DATE_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


class Mismatch(Exception):
    """A value that does not fit, with the place in it."""


def type_fits(value, name):
    if name == "integer":
        return isinstance(value, int) and not isinstance(value, bool)
    if name == "number":
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, TYPES[name])


class Schemas:
    def __init__(self, document):
        self.document = document
        self.met = set()

    def follow(self, node, place):
        """The node a $ref leads to, and the name it goes by."""
        while isinstance(node, dict) and "$ref" in node:
            keys = node["$ref"].removeprefix("#/").split("/")
            place = keys[-1]
            node = self.document
            for key in keys:
                node = node[key]
        return node, place

    def parts(self, schema, place):
        """(schema, place) of the node and of all it is composed of by allOf."""
        schema, place = self.follow(schema, place)
        found = [(schema, place)]
        for n, part in enumerate(schema.get("allOf", [])):
            found += self.parts(part, f"{place}+{n}")
        return found

    def members(self, schema, place):
        """Every (place, member) below a schema, as they are remembered when met."""
        found, seen, todo = set(), set(), [(schema, place)]
        while todo:
            node, where = self.follow(*todo.pop())
            if (id(node), where) in seen:
                continue
            seen.add((id(node), where))
            for name, below in node.get("properties", {}).items():
                found.add((where, name))
                todo.append((below, f"{where}.{name}"))
            for key in ("items", "additionalProperties"):
                if isinstance(node.get(key), dict):
                    todo.append((node[key], f"{where}[]"))
            for key, mark in (("allOf", "+"), ("anyOf", "|"), ("oneOf", "|")):
                todo += [(part, f"{where}{mark}{n}") for n, part in enumerate(node.get(key, []))]
        return found

    def check(self, value, schema, place, at="$"):
        """Raises Mismatch; remembers the members met when the value fits."""
        met = set()
        self._check(value, schema, place, at, met)
        self.met |= met

    def _check(self, value, schema, place, at, met):
        parts = self.parts(schema, place)
        for node, where in parts:
            unknown = set(node) - KNOWN
            assert not unknown, f"docs/openapi.yaml uses {unknown}, which tests/integration/schema.py does not know"
            self._scalar(value, node, at)
            for key in ("anyOf", "oneOf"):
                if key in node:
                    self._one_of(value, node[key], where, at, met)
            if isinstance(value, list) and "items" in node:
                for n, item in enumerate(value):
                    self._check(item, node["items"], f"{where}[]", f"{at}[{n}]", met)
        if isinstance(value, dict):
            self._object(value, parts, at, met)

    def _scalar(self, value, node, at):
        def need(fits, why):
            if not fits:
                raise Mismatch(f"{at}: {str(value)[:80]!r} {why}")
        if "type" in node:
            names = node["type"] if isinstance(node["type"], list) else [node["type"]]
            need(any(type_fits(value, name) for name in names), f"is no {names}")
        need("const" not in node or value == node["const"], f"is not {node.get('const')!r}")
        need("enum" not in node or value in node["enum"], f"is none of {node.get('enum')}")
        if isinstance(value, str):
            need("pattern" not in node or re.search(node["pattern"].replace("$", r"\Z"), value), f"does not match {node.get('pattern')}")
            need(len(value) <= node.get("maxLength", len(value)) and len(value) >= node.get("minLength", 0), "has the wrong length")
            need(node.get("format") != "date-time" or DATE_TIME.fullmatch(value), "is no time")
            if node.get("contentEncoding") == "base64":
                base64.b64decode(value.strip(), validate=True)
        if type_fits(value, "number"):
            need(node.get("minimum", value) <= value <= node.get("maximum", value), "is out of range")
        if isinstance(value, list):
            need(node.get("minItems", 0) <= len(value) <= node.get("maxItems", len(value)), "has the wrong number of items")

    def _one_of(self, value, choices, place, at, met):
        whys = []
        for n, choice in enumerate(choices):
            mine = set()
            try:
                self._check(value, choice, f"{place}|{n}", at, mine)
            except Mismatch as e:
                whys.append(str(e))
                continue
            met |= mine
            return
        raise Mismatch(f"{at} fits none of {len(choices)}: " + "; ".join(whys))

    def _object(self, value, parts, at, met):
        if not any(k in node for node, _ in parts for k in ("properties", "additionalProperties")):
            if all("anyOf" not in n and "oneOf" not in n for n, _ in parts):
                raise Mismatch(f"{at}: the document does not say what the object has")
            return
        known = {name: (below, where) for node, where in parts for name, below in node.get("properties", {}).items()}
        for node, _ in parts:
            missing = set(node.get("required", [])) - set(value)
            if missing:
                raise Mismatch(f"{at}: {sorted(missing)} missing")
        rest = next((n["additionalProperties"] for n, _ in parts if n.get("additionalProperties")), False)
        for name, member in value.items():
            if name in known:
                below, where = known[name]
                met.add((where, name))
                self._check(member, below, f"{where}.{name}", f"{at}.{name}", met)
            elif rest is False:
                raise Mismatch(f"{at}: the member {name!r} is not documented")
            elif rest is not True:
                self._check(member, rest, f"{parts[0][1]}[]", f"{at}.{name}", met)
