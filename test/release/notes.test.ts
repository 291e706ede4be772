// The text of a GitHub release is the changelog's section of its version, and of no other.
import { describe, expect, test } from 'vitest';
import { releaseNotes } from '../../release/notes.ts';

const CHANGELOG = `# Changelog

## Unreleased

### Added

- Not yet.

## 0.20.0 - 2030-02-28

- Another one.

## 0.2.0 - 2030-01-31

### Added

- [Versions](docs/versions.md#order-of-an-upgrade), [below](#top), [elsewhere](https://example.com/a).

## 0.1.0 - 2030-01-01

`;
const notes = (tag: string, version: string, filesUrl?: string) =>
  releaseNotes(tag, { changelog: CHANGELOG, version, filesUrl });

describe('releaseNotes', () => {
  test('returns the section of the version, without its heading', () => {
    expect(notes('v0.2.0', '0.2.0')).toBe(
      '### Added\n\n- [Versions](docs/versions.md#order-of-an-upgrade), [below](#top), [elsewhere](https://example.com/a).',
    );
  });

  test('completes relative links with the address of the files, and no others', () => {
    expect(notes('v0.2.0', '0.2.0', 'https://example.com/blob/v0.2.0/')).toContain(
      '[Versions](https://example.com/blob/v0.2.0/docs/versions.md#order-of-an-upgrade), [below](#top), [elsewhere](https://example.com/a).',
    );
  });

  test.each([
    { name: 'a tag of another version', tag: 'v0.2.1', version: '0.2.0', code: 'tag-differs' },
    { name: 'a tag without v', tag: '0.2.0', version: '0.2.0', code: 'tag-differs' },
    { name: 'a version without a section', tag: 'v0.3.0', version: '0.3.0', code: 'section-missing' },
    { name: 'an empty section', tag: 'v0.1.0', version: '0.1.0', code: 'section-missing' },
  ])('refuses $name', ({ tag, version, code }) => {
    expect(() => notes(tag, version)).toThrow(expect.objectContaining({ code }));
  });
});
