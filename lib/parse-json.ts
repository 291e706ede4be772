// Parses JSON of a caller or a server, with a limit: small values such as {} take twenty times their text in memory. Pure.

/** More values than any Secret or any page of a list has. Commas within strings count too. */
const MAX_VALUES = 100_000;

const [COMMA, BRACKET, BRACE] = [',', '[', '{'].map((character) => character.charCodeAt(0));

/** @throws RangeError if it has too many values; SyntaxError, which quotes the text, if it is not JSON */
export function parseJson(json: Uint8Array): unknown {
  // Each value takes a byte at least, so that most texts need not be counted.
  if (json.length > MAX_VALUES && countValues(json) > MAX_VALUES)
    throw new RangeError(`the JSON has more than ${MAX_VALUES} values`);
  return JSON.parse(Buffer.from(json.buffer, json.byteOffset, json.byteLength).toString());
}

function countValues(json: Uint8Array): number {
  let values = 0;
  for (const byte of json) if (byte === COMMA || byte === BRACKET || byte === BRACE) values += 1;
  return values;
}
