// `npm run messages`: prints every sentence that the command line, the webhook, the refresher and the CDK app may show a
// person, by file and line, so that wording can be reviewed in one read. An expression in a sentence is shown as {…}.
import { globSync, readFileSync } from 'node:fs';
import { stripTypeScriptTypes } from 'node:module';
import { styleText } from 'node:util';
import { parseAst } from 'vite';

export interface Message {
  readonly path: string;
  readonly line: number;
  readonly text: string;
}

interface Node {
  readonly type: string;
  readonly start: number;
  readonly [field: string]: unknown;
}

/** The programs whose sentences people read. */
const SOURCES = [
  'contract/**/*.ts',
  'cli/**/*.ts',
  'webhook/**/*.ts',
  'functions/**/*.ts',
  'lib/**/*.ts',
  'infra/**/*.ts',
];

/** Code and expressions, which have several words but are not sentences. */
const NOT_SENTENCES = ['createRequire(', 'require(', 'if_not_exists', 'charset='];

/** Fewer words are a code, a name or a part of a command. */
const MIN_WORDS = 3;

/** Finds the sentences in a module's string and template literals. */
export function messagesOf(path: string, source: string): Message[] {
  // Types are replaced by blanks, so that positions stay as they are in the source.
  const root = parseAst(stripTypeScriptTypes(source, { mode: 'strip' })) as unknown as Node;
  const messages: Message[] = [];
  const add = (node: Node, raw: string) => {
    const text = raw.replaceAll(/\s+/g, ' ').trim();
    if (text.split(' ').filter((word) => /\p{L}{2}/u.test(word)).length < MIN_WORDS) return;
    if (NOT_SENTENCES.some((part) => text.includes(part))) return;
    messages.push({ path, line: source.slice(0, node.start).split('\n').length, text });
  };
  const visit = (value: unknown): void => {
    if (Array.isArray(value)) {
      for (const item of value) visit(item);
      return;
    }
    if (typeof value !== 'object' || value === null || !('type' in value)) return;
    const node = value as Node;
    if (node.type.startsWith('Import') || (node.type.startsWith('Export') && !node.declaration)) return;
    if (node.type === 'Literal' && typeof node.value === 'string') add(node, node.value);
    if (node.type === 'TemplateLiteral') {
      const quasis = node.quasis as { value: { cooked: string } }[];
      add(node, quasis.map(({ value }) => value.cooked).join('{…}'));
    }
    for (const child of Object.values(node)) visit(child);
  };
  visit(root);
  return messages;
}

if (import.meta.main) {
  for (const path of globSync(SOURCES).sort()) {
    const messages = messagesOf(path, readFileSync(path, 'utf8'));
    if (messages.length === 0) continue;
    console.log(`\n${styleText('bold', path)}`);
    for (const { line, text } of messages) console.log(`${String(line).padStart(5)}  ${text}`);
  }
}
