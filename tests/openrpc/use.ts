// Uses the generated types like a client, to check their names and forms.
import type { Created, ErrorData, HandleInfo, LimitInfo } from "./index";

const made: Created = { handle: 1048576, family: 2, type: 1, proto: 6, timeout: null };
const error: ErrorData = { kind: "OSError", errno: 111, name: "ECONNREFUSED", errors: [{ kind: "timeout" }] };
const limit: LimitInfo = { value: 64, unit: "count", meaning: "calls of one batch" };
const number: HandleInfo["handle"] = made.handle;

export { made, error, limit, number };
