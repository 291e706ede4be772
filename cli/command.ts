// What a command is, and its options.
import { parseArgs } from 'node:util';

export interface Command {
  /** A line, for the list of commands. */
  readonly summary: string;
  readonly usage: string;
  /** What it prints. @throws UsageError, or Error that says what could not be done */
  run(args: readonly string[]): Promise<string>;
}

/** Not what the command takes. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/**
 * Reads options that have values, each at most once.
 *
 * @param required those that must be there
 * @throws UsageError that names what is wrong
 */
export function readOptions<Required extends string, Optional extends string>(
  args: readonly string[],
  required: readonly Required[],
  optional: readonly Optional[],
): Record<Required, string> & Partial<Record<Optional, string>> {
  const options = Object.fromEntries([...required, ...optional].map((name) => [name, { type: 'string' }]));
  const values = (() => {
    try {
      return parseArgs({ args: [...args], options: options as Record<string, { type: 'string' }> }).values;
    } catch (error) {
      throw new UsageError((error as Error).message);
    }
  })();
  const missing = required.filter((name) => !values[name]);
  if (missing.length > 0) throw new UsageError(`missing: ${missing.map((name) => `--${name}`).join(', ')}`);
  return values as Record<Required, string> & Partial<Record<Optional, string>>;
}
