// The project's one version, which each bundle contains, and how two versions compare.
import manifest from '../package.json' with { type: 'json' };

/** The version of this program: of the command line, the function, or the webhook. */
export const VERSION: string = manifest.version;

/** Compares two versions of three numbers: below 0 if the first is lower. */
export function compareVersions(one: string, other: string): number {
  return one.localeCompare(other, 'en', { numeric: true });
}

/**
 * Whether parts of two versions are supported beside each other: versions of one minor version, and of the one before it
 * (docs/versions.md).
 */
export function workTogether(one: string, other: string): boolean {
  const [major, minor] = one.split('.').map(Number);
  const [otherMajor, otherMinor] = other.split('.').map(Number);
  return major === otherMajor && Math.abs(Number(minor) - Number(otherMinor)) <= 1;
}
