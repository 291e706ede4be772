// doctor's report as text: a line for each check that passed or failed, one line for all that were skipped, then each
// failure with its meaning and its command. Where the output is not a terminal, nothing is wrapped.
import { formatList } from '../../output/format-list.ts';
import { colorize } from '../../output/io.ts';
import { terminalColumns, wrap } from '../../output/table.ts';
import { CHECKS, type Finding } from './checks.ts';

const COLUMN = Math.max(...Object.values(CHECKS).map(({ title }) => title.length)) + 5;

/** @param findings as judged, one for each check. @param columns of the terminal, if the output is one */
export function renderReport(findings: readonly Finding[], columns = terminalColumns()): string {
  const failures = findings.filter(({ verdict }) => verdict === 'failed');
  const blocks = failures.map((failure) => `\n${renderFailure(failure, columns)}`);
  const isAllPassed = findings.every(({ verdict }) => verdict === 'passed');
  return [
    renderChecks(findings, columns),
    ...(blocks.length > 0
      ? blocks
      : ['', isAllPassed ? colorize(['bold', 'green'], 'All checks passed.') : NO_FAILURE]),
  ].join('\n');
}

const NO_FAILURE = 'No check failed, but a skipped check may hide a failure (exit code 1).';

/** The line of each check, and that of the skipped ones. */
export function renderChecks(findings: readonly Finding[], columns = terminalColumns()): string {
  const skipped = findings.filter(({ verdict }) => verdict === 'skipped');
  return [
    ...findings.flatMap(({ check, verdict, message, code }) => {
      if (verdict === 'skipped') return [];
      const mark = verdict === 'passed' ? colorize('green', '✔') : colorize('red', '✖');
      const text = verdict === 'passed' ? colorize('dim', message) : (code ?? '');
      return [`${mark} ${CHECKS[check].title.padEnd(COLUMN - 2)}${hang(text, COLUMN, columns)}`];
    }),
    ...(skipped.length > 0 ? [`${colorize('gray', '–')} ${hang(summaryOf(skipped), 2, columns)}`] : []),
  ].join('\n');
}

/** How many checks were skipped, and why: `12 checks skipped: “AWS session” failed (function, registration, …)`. */
function summaryOf(skipped: readonly Finding[]): string {
  const reasons = [...Map.groupBy(skipped, ({ message }) => message)].map(
    ([message, findings]) => `${message} (${formatList(findings.map(({ check }) => check))})`,
  );
  return `${skipped.length} ${skipped.length === 1 ? 'check' : 'checks'} skipped: ${reasons.join('; ')}`;
}

/** What is wrong, what it means, and the command. The command stays on one line, so that it can be copied. */
function renderFailure(finding: Finding, columns: number | undefined): string {
  const { check, code, message, repair, investigate, hint } = finding;
  return [
    `${colorize(['bold', 'red'], CHECKS[check].title)} (${code})`,
    ...[message, CHECKS[check].means].map((text) => `  ${hang(text, 2, columns)}`),
    ...(repair === undefined ? [] : [`  ${colorize('bold', 'Repair:')} ${repair}`]),
    ...(investigate === undefined ? [] : [`  ${colorize('bold', 'Investigate:')} ${investigate}`]),
    ...(hint === undefined ? [] : [`  ${hang(hint, 2, columns)}`]),
  ].join('\n');
}

/** Wraps a text that begins in the given column, and indents its further lines to that column. */
export function hang(text: string, column: number, columns: number | undefined): string {
  return wrap(text, columns && columns - column).replaceAll('\n', `\n${' '.repeat(column)}`);
}
