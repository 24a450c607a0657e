import { readFileSync } from 'node:fs';
import { findPackageJSON } from 'node:module';

/** The version of this package, from its package.json. */
export function packageVersion(): string {
  const path = findPackageJSON('..', import.meta.url);
  if (path === undefined) return 'unknown';
  return (JSON.parse(readFileSync(path, 'utf8')) as { version: string }).version;
}
