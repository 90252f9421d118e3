//! What ends the children of a processor that was killed by `kill -9`: a shell, told by a pipe which groups there are.
//!
//! Its input ends with the processor, however that ends. Then what is still there has the same second to end by itself that
//! it has otherwise, and is killed. Linux could kill a child with its parent (`PR_SET_PDEATHSIG`), but not what the child
//! has started, and setting that between fork and exec is unsafe code.

use std::fmt::Display;
use std::fs::File;
use std::io::Write as _;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::process::Command;

/// Whoever ends a service by signals to all of its processes does not mean this one.
const WATCH: &str = r#"
trap '' HUP INT TERM
groups=' '
while read -r sign group; do
  case $sign in
    +) groups="$groups$group " ;;
    -) groups="${groups%% $group *} ${groups#* $group }" ;;
  esac
done
[ "$groups" = ' ' ] && exit
sleep 1
for group in $groups; do kill -KILL "-$group"; done
"#;

/// Clones share the shell. It ends with the last of them.
#[derive(Clone, Default)]
pub(super) struct Warden(Arc<Mutex<Shell>>);

#[derive(Default)]
enum Shell {
    #[default]
    NotYet,
    Listens(File),
    Gone,
}

impl Warden {
    /// There is this group now.
    pub(super) fn watch(&self, group: impl Display) {
        self.tell('+', &group);
    }

    /// It is gone.
    pub(super) fn forget(&self, group: impl Display) {
        self.tell('-', &group);
    }

    fn tell(&self, sign: char, group: &impl Display) {
        let mut shell = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*shell, Shell::NotYet) {
            *shell = start().unwrap_or_else(|error| {
                tracing::debug!(%error, "nobody will end the handlers of this processor if it is killed");
                Shell::Gone
            });
        }
        // It reads faster than children are started, and a pipe holds thousands of these lines.
        if let Shell::Listens(to) = &mut *shell
            && to.write_all(format!("{sign} {group}\n").as_bytes()).is_err()
        {
            *shell = Shell::Gone;
        }
    }
}

fn start() -> std::io::Result<Shell> {
    let mut child = Command::new("sh")
        .args(["-c", WATCH])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    let stdin = child.stdin.take().ok_or(std::io::ErrorKind::BrokenPipe)?;
    Ok(Shell::Listens(File::from(stdin.into_owned_fd()?)))
}
