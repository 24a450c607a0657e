// Plain JavaScript in the syntax of long ago: it must still run, and say its one line, on a Node.js that is too old.
const needed = [24, 12];
const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);

if (major < needed[0] || (major === needed[0] && minor < needed[1])) {
  console.error(
    `Potluck needs Node.js ${needed.join('.')} or newer; this is ${process.versions.node}. ` +
      'In a checkout, "npm start" and "npm run potluck -- ARGS" bring the right one along.',
  );
  process.exit(2);
}
