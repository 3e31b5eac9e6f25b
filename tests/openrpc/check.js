// check.js DOCUMENT: validates and dereferences the document, and checks calls against it.
"use strict";
const fs = require("fs");
const assert = require("assert");
const tools = require("@open-rpc/schema-utils-js");

const read = () => JSON.parse(fs.readFileSync(process.argv[2]));

/** Calls with whether they fit to the schemas. */
const CALLS = [
    ["socket.socket", [], true],
    ["socket.socket", ["AF_INET", "SOCK_STREAM", 0], true],
    ["socket.socket", { family: "AF_INET", type: 1 }, true],
    ["socket.bind", [1048576, ["127.0.0.1", 0]], true],
    ["socket.sendall", { handle: 1048576, bytes: { attachment: 0 } }, true],
    ["socket.poll", [[[1048576, 1]], 1.5], true],
    ["socket.getservbyname", ["http"], true],
    ["socket.getservbyname", [5], false],
    ["socket.socket", { fileno: -1 }, false],
    ["socket.socket", { fileno: 4294967296 }, false],
];

async function main() {
    const valid = tools.validateOpenRPCDocument(read());
    assert.strictEqual(valid, true, String(valid));
    const document = await tools.dereferenceDocument(read());
    assert.ok(!JSON.stringify(document.methods).includes('"$ref"'), "a reference is left");
    for (const method of document.methods) {
        assert.ok(method.errors.length > 0, `${method.name} names no error`);
        for (const error of method.errors) assert.ok(Number.isInteger(error.code), method.name);
    }
    const validator = new tools.MethodCallValidator(document);
    for (const [method, params, fits] of CALLS) {
        const faults = validator.validate(method, params);
        assert.ok(Array.isArray(faults), `${method}: ${faults}`);
        assert.strictEqual(faults.length === 0, fits, `${method} ${JSON.stringify(params)}: ${faults}`);
    }
    console.log(`${document.methods.length} methods are valid and dereferenced; ${CALLS.length} calls were judged`);
}

main().catch((error) => {
    console.error(error);
    process.exit(1);
});
