//! `annulus repair`: cuts a damaged log, after asking. Called by `main`.
//!
//! Invariant: nothing is changed before somebody has agreed to what is said.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::Path;

use super::{Failure, print, verify};
use crate::store::directory::{DataDirectory, Missing};
use crate::store::recovery::{self, RecoveryError};
use crate::store::repair;

/// Repairs `directory`; asks first unless `yes` was said already. Answers the report.
///
/// # Errors
/// Nobody agreed, nothing helps, or the system refuses something.
pub fn run(directory: &Path, yes: bool) -> Result<String, Failure> {
    let directory = DataDirectory::open(directory, Missing::Refuse)?;
    let mut listing = directory.list()?;
    loop {
        let damage = match recovery::load(&directory, &listing, verify::map()) {
            Ok(recovered) => return Ok(verify::report(&directory, &listing, &recovered)),
            Err(RecoveryError::Damaged { damage, .. }) => damage,
            Err(error) => return Err(error.into()),
        };
        let plan = repair::plan(&directory, &listing, &damage).map_err(Failure::running)?;
        print(&format!("damage     {damage}\nrepair     {plan}\n"));
        if !yes {
            agree()?;
        }
        let kept = plan.carry_out(&directory).map_err(Failure::running)?;
        for name in kept {
            print(&format!("kept       {name}\n"));
        }
        listing = directory.list()?;
    }
}

fn agree() -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        let reason = "nothing was changed: nobody is there to be asked; agree with --yes";
        return Err(Failure::running(reason));
    }
    print("Do it? [y/N] ");
    let _ = io::stdout().flush();
    let mut answer = String::new();
    let _ = io::stdin().lock().read_line(&mut answer);
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::running("nothing was changed")),
    }
}
