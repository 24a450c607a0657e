/** One word for a POSIX shell that means exactly `text`. */
export function shellQuoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
