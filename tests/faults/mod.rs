//! The journal against single faults, pairs of faults, the traces of the recovery model, and every cut of every small
//! history: the real engine on a simulated device, cut and damaged by enumeration instead of by chance.

pub mod astray;
pub mod bench;
pub mod classes;
pub mod clones;
pub mod cuts;
pub mod deletes;
pub mod device;
pub mod histories;
pub mod large;
pub mod mixtures;
pub mod online;
pub mod ordering;
pub mod overtaken;
pub mod pairs;
pub mod plants;
pub mod recoveries;
pub mod repairs;
pub mod rich;
pub mod rules;
pub mod singles;
pub mod split;
pub mod traces;
