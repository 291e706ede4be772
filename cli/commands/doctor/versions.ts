// Which versions of the command line, the function and the chart doctor found, and what follows if they differ.
import { compareVersions, VERSION, workTogether } from '../../../lib/version.ts';
import { colorize } from '../../output/io.ts';
import type { ShellCommands } from '../../output/shell-commands.ts';
import { hang } from './render.ts';

/** The versions that were found. */
export interface Versions {
  readonly cli: string;
  /** Absent if the function was not called, or states no version: then it is older than the first version that does. */
  readonly function?: string | undefined;
  /** Of the chart's objects in the cluster. Absent if the chart was not found. */
  readonly chart?: string | undefined;
}

/** A difference of versions. It fails no check, because the checks show whether the parts work together. */
export interface VersionWarning {
  readonly code: 'function-older' | 'function-newer' | 'chart-older' | 'chart-newer';
  /** Whether the two versions are supported beside each other, as during an upgrade (docs/versions.md). */
  readonly supported: boolean;
  readonly message: string;
  readonly hint: string;
}

/** @param found absent parts were not looked at. @param found.function null if the function states no version */
export function versionsOf(
  found: { readonly function?: string | null | undefined; readonly chart?: string | undefined },
  commands: ShellCommands,
): { readonly versions: Versions; readonly versionWarnings: readonly VersionWarning[] } {
  const { chart } = found;
  const ofFunction =
    found.function === undefined ? [] : difference('function', found.function, commands.deploy());
  const ofChart = chart === undefined ? [] : difference('chart', chart, commands.upgrade());
  return {
    versions: {
      cli: VERSION,
      ...(typeof found.function === 'string' && { function: found.function }),
      ...(chart !== undefined && { chart }),
    },
    versionWarnings: [...ofFunction, ...ofChart],
  };
}

/** @param version null if the part states none, as the versions before the first that does. */
function difference(part: 'function' | 'chart', version: string | null, upgrade: string): VersionWarning[] {
  const order = version === null ? -1 : compareVersions(version, VERSION);
  if (order === 0) return [];
  const supported = version !== null && workTogether(version, VERSION);
  const has =
    version === null
      ? `The ${part} states no version, so it is older than this command line (${VERSION}).`
      : `The ${part} has version ${version}, this command line ${VERSION}.`;
  const also = supported
    ? 'They work together while you upgrade.'
    : 'They are not supported together, and may not understand each other.';
  return [
    {
      code: `${part}-${order < 0 ? 'older' : 'newer'}`,
      supported,
      message: `${has} ${also}`,
      hint:
        order < 0
          ? `To upgrade the ${part}, with version ${VERSION}: ${upgrade}`
          : `Use the command line of version ${version}.`,
    },
  ];
}

/** The warnings as lines of text; empty if there is none. */
export function renderVersionWarnings(
  warnings: readonly VersionWarning[],
  columns: number | undefined,
): string[] {
  return warnings.flatMap(({ message, hint }) => [
    `${colorize('yellow', '!')} ${hang(message, 2, columns)}`,
    `  → ${hint}`,
  ]);
}
