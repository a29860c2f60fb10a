"""Writes the gateway's Pydantic shapes from the protos; with `--check` it only tells whether they are up to date.

Which fields a body and an answer have follows the table in docs/design.md, what a field's text looks like stands in
`gateway/fields.py`, and the protos' comments become the descriptions in the OpenAPI. Shapes are made for the services
that the door serves: an `x_service.proto` that keeps the resource of an `x.proto` beside it.
"""

import json
import keyword
import sys
import tempfile
from pathlib import Path
from typing import Any

import google.api.field_behavior_pb2 as behavior
import grpc_tools  # type: ignore[import-untyped]
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc

HERE = Path(__file__).resolve().parent
PROTOS = HERE.parent / "protos"
SCHEMAS = HERE / "gateway" / "schemas"
sys.path.insert(0, str(HERE))

from gateway import fields  # noqa: E402
from gateway.messages import enum_texts  # noqa: E402

TYPE_NAMES = {id(value): f"fields.{name}" for name, value in vars(fields).items()}
NEVER_IN_QUERY = {"page_size", "page_token", "limit", "expected_version"}
HEADER = '''"""Generated from protos/ by gateway/generate_schemas.py: never edit, run `make generate`."""

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypeAliasType

from gateway import fields
'''


def read_protos() -> list[FileDescriptorProto]:
    """Compiles the protos, with their comments."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "protos.binpb"
        includes = [PROTOS, Path(behavior.__file__).parents[2], Path(grpc_tools.__file__).parent / "_proto"]
        names = sorted(path.relative_to(PROTOS).as_posix() for path in PROTOS.glob("aarokya/**/*.proto"))
        options = ["--include_source_info", f"--descriptor_set_out={target}", *(f"-I{path}" for path in includes)]
        if protoc.main(["protoc", *options, *names]) != 0:
            raise SystemExit("The protos don't compile.")
        return list(FileDescriptorSet.FromString(target.read_bytes()).file)


def quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def has(field: FieldDescriptorProto, *names: str) -> bool:
    return any(behavior.FieldBehavior.Value(n) in field.options.Extensions[behavior.field_behavior] for n in names)


class Module:
    """The Python module of one proto package. Whatever a shape refers to is written before it, and only once."""

    def __init__(self, files: list[FileDescriptorProto]) -> None:
        self._messages = {f".{file.package}.{m.name}": m for file in files for m in file.message_type}
        self._enums = {f".{file.package}.{e.name}": e for file in files for e in file.enum_type}
        self._comments: dict[str, str] = {}
        self._written: dict[str, str] = {}
        for file in files:
            self._read_comments(file)
        names = {file.name for file in files}
        for file in files:
            if file.name.endswith("_service.proto") and file.name.replace("_service", "") in names:
                for message in file.message_type:
                    (self._write_request if message.name.endswith("Request") else self._write_response)(message)

    def text(self) -> str:
        return "\n\n".join([HEADER, *self._written.values()])

    def _read_comments(self, file: FileDescriptorProto) -> None:
        for location in filter(lambda location: location.leading_comments, file.source_code_info.location):
            owner: Any = file
            names = []
            for kind, index in zip(location.path[::2], location.path[1::2], strict=False):
                owner = getattr(owner, owner.DESCRIPTOR.fields_by_number[kind].name)[index]
                names.append(owner.name)
            self._comments[".".join(names)] = " ".join(location.leading_comments.split())

    def _write_response(self, message: DescriptorProto) -> None:
        for field in (field for field in message.field if field.type_name in self._messages):
            answer = self._answer(field.type_name)
            if message.name.startswith("List"):
                items = self._property(message, field, f"list[{answer}]").replace(field.name, "items", 1)
                self._write(f"{answer}List", "Answer", message, f"{items}    next_page_token: fields.NextPageToken\n")

    def _write_request(self, message: DescriptorProto) -> None:
        verb = message.name.removesuffix("Request")
        resource = next((field.type_name for field in message.field if field.type_name in self._messages), "")
        required = [field for field in message.field if has(field, "REQUIRED")]
        if verb.startswith("Batch"):
            # So asks the gateway by itself, for several callers at once.
            return
        if verb.startswith("List"):
            self._write(f"{verb}Query", "PageQuery", message, self._query_properties(message))
        elif any(field.name == "update_mask" for field in message.field):
            self._input(resource, "Update{}Body", "IMMUTABLE")
        elif resource:
            self._input(resource, "Create{}Body")
        elif required:
            properties = [self._property(message, field, self._type(message, field, "Body")) for field in required]
            self._write(f"{verb}Body", "Body", message, "".join(properties))
        elif lines := self._query_properties(message):
            self._write(f"{verb}Query", "Query", message, lines)

    def _query_properties(self, message: DescriptorProto) -> str:
        lines = ""
        for field in message.field:
            # A plain string is part of the path, and a message other than a time is for the gateway and the service.
            in_path = field.type == field.TYPE_STRING and not field.proto3_optional
            if field.name in NEVER_IN_QUERY or field.type_name in self._messages or in_path:
                continue
            if field.type == field.TYPE_BOOL:
                lines += self._property(message, field, "fields.QueryFlag", "default=False, ")
            else:
                lines += self._property(message, field, f"{self._type(message, field)} | None", "default=None, ")
        return lines

    def _answer(self, type_name: str) -> str:
        message = self._messages[type_name]
        lines = ""
        for field in (field for field in message.field if not has(field, "INPUT_ONLY")):
            nullable = field.proto3_optional and not has(field, "NON_EMPTY_DEFAULT")
            lines += self._property(message, field, self._type(message, field) + " | None" * nullable)
        return self._write(message.name, "Answer", message, lines)

    def _input(self, type_name: str, pattern: str, *refused: str) -> str:
        message = self._messages[type_name]
        lines = ""
        for field in (field for field in message.field if not has(field, "OUTPUT_ONLY", *refused)):
            clearable = field.proto3_optional and not has(field, "REQUIRED", "NON_EMPTY_DEFAULT")
            required = has(field, "REQUIRED") and not pattern.startswith("Update")
            annotation = self._type(message, field, "Body") + " | None" * clearable
            lines += self._property(message, field, annotation, "" if required else "default_factory=fields.absent, ")
        return self._write(pattern.format(message.name), "Body", message, lines)

    def _type(self, message: DescriptorProto, field: FieldDescriptorProto, base: str = "") -> str:
        """The annotation of a field: strict and bounded for a `Body`, as documentation for anything else."""
        declared = fields.FIELD_TYPES.get(f"{message.name}.{field.name}", fields.FIELD_TYPES.get(field.name))
        entry = next((nested for nested in message.nested_type if field.type_name.endswith(f".{nested.name}")), None)
        repeated = field.label == field.LABEL_REPEATED
        if entry is not None:
            annotation = f"dict[{TYPE_NAMES[id(declared)]}, {self._type(entry, entry.field[1], base)}]"
        elif field.type_name in self._messages:
            annotation = self._input(field.type_name, "{}Body") if base else self._answer(field.type_name)
        elif field.type_name in self._enums:
            annotation = self._enum(field.type_name)
        elif field.type_name == ".google.protobuf.Timestamp":
            annotation = "fields.Rfc3339"
        elif declared is not None:
            annotation = TYPE_NAMES[id(declared)]
        elif field.type == field.TYPE_BOOL:
            annotation = "bool"
        elif base:
            raise SystemExit(f"{message.name}.{field.name} has no type in gateway/fields.py.")
        else:
            annotation = "str" if field.type == field.TYPE_STRING else "int"
        annotation = f"list[{annotation}]" if repeated and entry is None else annotation
        return f"Annotated[{annotation}, Field(max_length=fields.MAX_ITEMS)]" if base and repeated else annotation

    def _enum(self, type_name: str) -> str:
        enum = self._enums[type_name]
        texts = enum_texts(enum.name, {value.number: value.name for value in enum.value})
        meanings = [f"- `{texts[v.number]}`: {self._comments[f'{enum.name}.{v.name}']}" for v in enum.value if v.number]
        description = quoted("\n".join([self._comments[enum.name], "", *meanings]))
        choices = f"Annotated[Literal[{', '.join(map(quoted, texts.values()))}], Field(description={description})]"
        self._written.setdefault(enum.name, f'{enum.name} = TypeAliasType("{enum.name}", {choices})\n')
        return enum.name

    def _property(self, owner: DescriptorProto, field: FieldDescriptorProto, annotation: str, default: str = "") -> str:
        name, alias = field.name, ""
        if keyword.iskeyword(name):
            name, alias = f"{name}_", f"alias={quoted(name)}, "
        description = quoted(self._comments[f"{owner.name}.{field.name}"])
        return f"    {name}: {annotation} = Field({default}{alias}description={description})\n"

    def _write(self, name: str, base: str, message: DescriptorProto, lines: str) -> str:
        text = f'class {name}(fields.{base}):\n    """{self._comments[message.name]}"""\n\n{lines}'
        self._written.setdefault(name, text.rstrip() + "\n")
        return name


def main() -> None:
    packages: dict[str, list[FileDescriptorProto]] = {}
    for file in read_protos():
        packages.setdefault(file.package.split(".")[1], []).append(file)
    texts = {f"{name}.py": Module(files).text() for name, files in packages.items()}
    for name, text in {"__init__.py": HEADER.splitlines(keepends=True)[0], **texts}.items():
        path = SCHEMAS / name
        if "--check" not in sys.argv[1:]:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            raise SystemExit(f"{path} does not follow from the protos: run `make generate`.")


if __name__ == "__main__":
    main()
