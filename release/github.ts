// Creates the GitHub release of a tag, with the changelog's section and the files that the release builds, by GitHub's `gh`:
// `npm run release:github -- v0.2.0 FILE…`. gh takes its token from $GH_TOKEN.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { NotesError, notesOfCheckout } from './notes.ts';

const [tag, ...files] = process.argv.slice(2);
process.exitCode = create();

/** @returns the exit code: 2 if the release was not tried, else that of gh */
function create(): number {
  if (tag === undefined || files.length === 0)
    return refuse('Give a tag and the files: npm run release:github -- v0.2.0 FILE…');
  const missing = files.filter((file) => !existsSync(file));
  // gh would have created the release before it finds out.
  if (missing.length > 0) return refuse(`${missing.join(' and ')} does not exist. Build it first.`);
  let notes: string;
  try {
    notes = notesOfCheckout(tag);
  } catch (error) {
    if (!(error instanceof NotesError)) throw error;
    return refuse(`${error.message} (${error.code})`);
  }
  // --verify-tag: gh must not create the tag. It publishes only after all files are uploaded.
  const args = ['release', 'create', tag, '--verify-tag', '--title', tag, '--notes-file', '-', ...files];
  const { status, error } = spawnSync('gh', args, { input: notes, stdio: ['pipe', 'inherit', 'inherit'] });
  if (error) return refuse(`gh cannot be started: ${error.message}. Install it from cli.github.com.`);
  return status ?? 1;
}

function refuse(message: string): number {
  console.error(`✖ ${message}`);
  return 2;
}
