//! The program `updated`: what an installer and an init system run.

use std::ffi::OsString;
use std::num::NonZeroU8;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::string::ToString as _;
use std::{format, thread};

use blockdev::FileDevice;
use clap::{Parser, Subcommand, ValueEnum};
use rustix::rand::{GetRandomFlags, getrandom};
use serde_json::json;
use statefs_cli::{Exit, Failure, Output, Reach};
use statefs_client::Client;

use crate::boot::{self, BootError};
use crate::{Control, Error, KEY, PREFIX, Slot, Status, change, find, initialise, open, reset};

/// Keep A/B boot control in StateFS: which system to boot, how often to try it, the way back.
///
/// Every verb prints the control as it is then. No verb leaves a machine without a good slot.
#[derive(Parser, Debug)]
#[command(name = "updated", version, verbatim_doc_comment, after_help = EXIT_CODES)]
struct Cli {
    #[command(flatten)]
    reach: Reach,

    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Print the control
    Status,
    /// Make the first control of a machine
    Init {
        /// The slot that the machine runs from
        good: SlotName,
    },
    /// Give up what is in a slot, before a system is written there
    Prepare {
        /// The slot to be written
        slot: SlotName,
    },
    /// Note that a system was written, and boot it from now on
    Stage {
        /// The slot that was written
        slot: SlotName,
        /// How many boots it gets to say that it is good, 15 at most
        #[arg(long, value_name = "COUNT", default_value = "3")]
        tries: NonZeroU8,
    },
    /// Note, early at each boot, that the system in a slot has started
    Begin {
        /// The slot that runs
        slot: SlotName,
    },
    /// Note that the system in a slot runs well
    MarkGood {
        /// The slot that runs
        slot: SlotName,
    },
    /// Go back to the other slot, and give up the one that is booted
    Rollback,
    /// Make a new control in the place of a damaged one
    Reset {
        /// The slot that is known to be good
        good: SlotName,
        /// Say so: what is known of the other slot is lost
        #[arg(long, required = true)]
        give_up_the_old_control: bool,
    },
    /// Print the slot that a boot loader chooses, from a volume that no daemon serves
    Choose {
        /// The image or block device
        image: PathBuf,
        /// Boots of this generation that the loader has begun already
        #[arg(long, value_name = "COUNT", default_value = "0")]
        boots: u8,
    },
}

#[derive(Clone, Copy, ValueEnum, Debug)]
enum SlotName {
    #[value(alias = "A")]
    A,
    #[value(alias = "B")]
    B,
}

impl From<SlotName> for Slot {
    fn from(name: SlotName) -> Self {
        match name {
            SlotName::A => Self::A,
            SlotName::B => Self::B,
        }
    }
}

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 failure, 2 usage, 3 no control yet, 4 the control does not allow it, 5 denied,
6 the control is damaged, 7 unavailable, 8 no space, 9 indeterminate: `updated status` tells";

/// Runs the program with these arguments, the first being its name, and yields its exit code.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    statefs_cli::program("updated", arguments, |cli: &Cli| &cli.reach, run)
}

fn run(cli: Cli, mut output: Output) -> Result<(), Failure> {
    if let Verb::Choose { image, boots } = cli.verb {
        let control = read(&image)?;
        let slot = control.choose(boots).to_string();
        let object = json!({"generation": control.generation(), "slot": slot});
        output.either(&object, &slot)?;
        return output.finish();
    }
    let client = Client::connect(cli.reach.socket())?;
    let boot = open(&client.calls());
    let changed = match cli.verb {
        Verb::Init { good } => client.run(initialise(&boot, good.into())),
        Verb::Prepare { slot } => client.run(change(&boot, |control| control.prepare(slot.into()))),
        Verb::Stage { slot, tries } => {
            client.run(change(&boot, |control| control.stage(slot.into(), tries)))
        }
        Verb::Begin { slot } => client.run(change(&boot, |control| control.begin(slot.into()))),
        Verb::MarkGood { slot } => {
            client.run(change(&boot, |control| control.mark_good(slot.into())))
        }
        Verb::Rollback => client.run(change(&boot, Control::roll_back)),
        Verb::Reset { good, .. } => {
            let random = random()?;
            client.run(reset(&boot, good.into(), random))
        }
        Verb::Status | Verb::Choose { .. } => {
            client.run(find(&boot)).and_then(|control| control.ok_or(Error::Absent))
        }
    };
    print(&changed.map_err(failure)?, &mut output)?;
    output.finish()
}

fn random() -> Result<u64, Failure> {
    let mut random = [0; 8];
    getrandom(&mut random, GetRandomFlags::empty())
        .map_err(|error| Failure::new("NO_ENTROPY", Exit::Failure, error))?;
    Ok(u64::from_le_bytes(random))
}

fn print(control: &Control, output: &mut Output) -> Result<(), Failure> {
    let status = |slot| match control.status(slot) {
        Status::Empty => json!({"status": "empty"}),
        Status::Trying { left } => json!({"left": left, "status": "trying"}),
        Status::Good => json!({"status": "good"}),
    };
    let (primary, generation) = (control.primary(), control.generation());
    let object = json!({
        "a": status(Slot::A),
        "b": status(Slot::B),
        "generation": generation,
        "primary": primary.to_string(),
    });
    let (a, b) = (control.status(Slot::A), control.status(Slot::B));
    let text = format!("primary: {primary}\nA: {a}\nB: {b}\ngeneration: {generation}");
    output.either(&object, &text)
}

fn failure(error: Error) -> Failure {
    let exit = match &error {
        Error::Store(_) => Exit::Failure,
        Error::Damaged(_) => Exit::DataLoss,
        Error::Absent => Exit::Absent,
        Error::Present | Error::Refused(_) | Error::Contended => Exit::Conflict,
    };
    let code = error.code();
    match error {
        Error::Store(error) => Failure::from(error).about(format!("{PREFIX}/{KEY}")),
        Error::Damaged(_) => Failure::new(code, exit, error)
            .advise("`updated reset` makes a new one, once you know which slot is good"),
        Error::Absent => Failure::new(code, exit, error)
            .advise("`updated init` makes it, with the slot that the machine runs from"),
        Error::Present | Error::Refused(_) => {
            Failure::new(code, exit, error).advise("`updated status` tells how things stand")
        }
        Error::Contended => Failure::new(code, exit, error).advise("try again"),
    }
}

/// Reads the control as a boot loader does.
fn read(image: &Path) -> Result<Control, Failure> {
    let about = |failure: Failure| failure.about(image.display());
    let options = blockdev::OpenOptions { read_only: true, ..Default::default() };
    let mut device = FileDevice::open(image, options, || {})
        .map_err(|error| about(Failure::new("DEVICE", Exit::Failure, error)))?;
    let idle = || {
        thread::yield_now();
        true
    };
    match boot::read(&mut device, idle) {
        Ok(Some(control)) => Ok(control),
        Ok(None) => Err(about(failure(Error::Absent))),
        Err(BootError::Damaged(damage)) => Err(about(failure(Error::Damaged(damage)))),
        Err(error @ BootError::Unreadable) => {
            let failure = Failure::new("IO_ERROR", Exit::Unavailable, error);
            Err(about(failure.advise("the control is not lost; try again, and check the device")))
        }
        Err(error @ (BootError::Volume(_) | BootError::Silent)) => {
            Err(about(Failure::new("NO_VOLUME", Exit::Failure, error)))
        }
    }
}
