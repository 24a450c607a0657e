/** What a hostile action tries on its inputs. Each line may fail; what matters is what is left afterwards. */
export const attacksOnInputs = [
  'chmod 777 in/f in/x in big here',
  'echo evil > in/f',
  'echo evil >> in/x',
  'truncate -s 0 in/f big here',
  'dd if=/dev/zero of=in/f bs=1 count=3 conv=notrunc',
  'ln in/f stolen && chmod 666 stolen && echo evil > stolen',
  'ln big stolen2 && echo evil > stolen2',
  'ln -f in/x out/hard && echo evil > out/hard',
  'echo evil > e && mv -f e in/f',
  'mv in/f moved && echo evil > moved',
  'mv in moved-dir',
  'rm -rf in big here',
  'mount -o remount,rw /execroot/in',
  'umount /execroot/in && echo evil > in/f',
  'touch -t 200001010000 in/f',
  'chown 0:0 in/f',
  'setfattr -n user.x -v y in/f',
  "python3 -c \"import os; f=os.open('in/f', os.O_RDONLY); os.fchmod(f, 0o777); os.open('/proc/self/fd/%d' % f, os.O_WRONLY)\"",
  'cp /bin/sh out/suid && chmod 6777 out/suid',
].join('\n');

/**
 * Makes the first process of the sandbox forget that it dies with bubblewrap, gives it the command's end to report, and
 * stays. For x86-64, by numbers: system calls, requests of ptrace, and places in struct user_regs_struct.
 */
export const tracesTheFirstProcess = String.raw`
if (fork) { sleep 60; exit }
my ($ptrace, $attach, $getregs, $setregs, $step, $poke) = (101, 16, 12, 13, 9, 5);
syscall(112);
syscall($ptrace, $attach, 1, 0, 0) == 0 or exit 1;
waitpid(1, 0x40000000);
my $saved = "\0" x 216;
syscall($ptrace, $getregs, 1, 0, $saved);
sub inject {
  my @regs = unpack('Q27', $saved);
  my ($call, $first, $second, $third) = @_;
  @regs[10, 14, 13, 12, 15, 16] = ($call, $first, $second, $third, 0xffffffffffffffff, $regs[16] - 2);
  my $changed = pack('Q27', @regs);
  syscall($ptrace, $setregs, 1, 0, $changed);
  syscall($ptrace, $step, 1, 0, 0);
  waitpid(1, 0x40000000);
}
$| = 1;
print "traced\n";
my $place = (unpack('Q27', $saved))[19] - 4096;
syscall($ptrace, $poke, 1, $place, 1);
inject(157, 1, 0, 0);
inject(3, 1, 0, 0);
inject(3, 2, 0, 0);
kill 9, getppid;
close $_ for *STDIN, *STDOUT, *STDERR;
$0 = 'potluck-' . 'survivor';
inject(1, $_, $place, 8) for 3 .. 9;
sleep 60;
`;
