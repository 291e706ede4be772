// Prints the changelog's section of a version, which is the text of its GitHub release: `npm run release:notes -- v0.2.0`.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { VERSION } from '../lib/version.ts';
import { orRefuse, ReleaseError } from './release-error.ts';

const ROOT = join(import.meta.dirname, '..');

/** Why there are no notes: the tag is not that of a release of this checkout. */
export class NotesError extends ReleaseError<'usage' | 'tag-differs' | 'section-missing'> {}

/** What the notes are made from. */
export interface NotesSource {
  readonly changelog: string;
  /** The version of the checkout, such as 0.2.0. */
  readonly version: string;
  /** Where a reader finds the files of the tag, with a slash at its end: relative links are completed with it. */
  readonly filesUrl?: string | undefined;
}

/**
 * Returns the section of a tag's version, without its heading.
 *
 * @param tag such as v0.2.0
 * @throws NotesError if the checkout has another version, or the changelog has no dated section with content
 */
export function releaseNotes(tag: string, { changelog, version, filesUrl }: NotesSource): string {
  if (tag !== `v${version}`)
    throw new NotesError(
      'tag-differs',
      `The tag is ${tag}, but the checkout has version ${version}. Tag the commit of "npm run release:version" with v${version}.`,
    );
  const section = changelog
    .split(/^## /m)
    .find((each) => each.startsWith(`${version} - `))
    ?.replace(/^.*\n/, '')
    .trim();
  if (!section)
    throw new NotesError(
      'section-missing',
      `CHANGELOG.md has no section "## ${version} - DATE" with content. Run "npm run release:version -- ${version}", commit, and tag that commit.`,
    );
  if (filesUrl === undefined) return section;
  return section.replace(/\]\((?![a-z]+:|#)/g, `](${filesUrl}`);
}

/** The notes of this checkout. Links lead to the files of the tag if $GITHUB_REPOSITORY names a repository. */
export function notesOfCheckout(tag: string): string {
  const { GITHUB_REPOSITORY, GITHUB_SERVER_URL = 'https://github.com' } = process.env;
  return releaseNotes(tag, {
    changelog: readFileSync(join(ROOT, 'CHANGELOG.md'), 'utf8'),
    version: VERSION,
    filesUrl: GITHUB_REPOSITORY && `${GITHUB_SERVER_URL}/${GITHUB_REPOSITORY}/blob/${tag}/`,
  });
}

if (import.meta.main)
  orRefuse(() => {
    const [tag, ...more] = process.argv.slice(2);
    if (tag === undefined || more.length > 0)
      throw new NotesError('usage', `Give one tag: npm run release:notes -- v${VERSION}`);
    console.log(notesOfCheckout(tag));
  });
