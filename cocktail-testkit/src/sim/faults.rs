//! What goes wrong outside the Manager: stock, quota, foreign objects, servers that die, are interrupted, reboot or stand
//! still.

use cocktail_core::contract::Interruption;
use cocktail_core::fleet::Owner;
use cocktail_core::id::{OperationId, ServerId, StoreId};

use super::manager::Input;
use super::wall;
use super::world::{Happening, World};

/// From a notice to the interruption.
const NOTICE: u64 = 120_000;

impl World {
    /// The first of each kind of fault; each brings the next.
    pub(super) fn begin_faults(&mut self) {
        for offering in 0..self.provider.offerings.len() {
            self.again(self.rates.stock_on, Happening::Stock { offering });
        }
        self.again(self.rates.quota, Happening::Quota);
        self.again(self.rates.foreign, Happening::Foreign);
        self.again(self.rates.server_life, Happening::ServerDies);
        self.again(self.rates.reboot, Happening::Reboot);
        self.again(self.rates.pause, Happening::Pause);
        self.again(self.rates.clock, Happening::Clock);
        self.again(self.rates.cut, Happening::Cut);
        self.again(self.rates.notice, Happening::Notice);
        self.again(self.rates.load, Happening::Load);
        self.after(5_000, Happening::User);
    }

    /// An offering runs out of stock, or is there again.
    pub(super) fn stock(&mut self, offering: usize) {
        let Some(there) = self.provider.in_stock.get_mut(offering).filter(|_| !self.healed) else { return };
        *there = !*there;
        let there = *there;
        self.trace.note(self.now, format_args!("offering {offering} in stock: {there}"));
        let mean = if there { self.rates.stock_on } else { self.rates.stock_off };
        self.again(mean, Happening::Stock { offering });
    }

    /// The account's limit moves.
    pub(super) fn move_quota(&mut self) {
        let most = u64::from(self.options.servers) + 5;
        let quota = self.chance.between(most / 2, most);
        self.provider.quota = if self.healed { self.provider.quota } else { usize::try_from(quota).unwrap_or(1) };
        self.again(self.rates.quota, Happening::Quota);
    }

    /// Something of others appears: without an owner, or with another store's tag.
    pub(super) fn foreign(&mut self) {
        if self.healed {
            return;
        }
        let number = self.chance.below(1 << 40);
        let server = ServerId::new(format!("foreign-{number}"));
        let tagged = self.chance.happens(300);
        let owner = tagged.then(|| Owner { store: StoreId::new("another"), operation: OperationId(7) });
        let (rates, chance) = (&self.rates, &mut self.chance);
        let id = self.provider.make(self.now, server, owner, 0, false, rates, chance);
        self.trace.note(self.now, format_args!("foreign {id}, tagged: {tagged}"));
        let pause = self.chance.between(60_000, 900_000);
        self.after(pause, Happening::ForeignGone { id });
        self.again(self.rates.foreign, Happening::Foreign);
    }

    /// Its owner takes it away, and the user lets the Manager buy again.
    pub(super) fn foreign_gone(&mut self, id: &str) {
        self.object_gone(id);
        self.release();
    }

    /// A server ends by itself.
    pub(super) fn server_dies(&mut self) {
        if let Some(server) = self.any_machine() {
            let found = self.provider.ours().find(|(_, it)| it.server == server).map(|(id, _)| id.clone());
            if let Some(id) = found {
                self.trace.note(self.now, format_args!("{server} dies"));
                self.machines.remove(&server);
                self.object_gone(&id);
            }
        }
        self.again(self.rates.server_life, Happening::ServerDies);
    }

    /// The provider gives notice that it will interrupt a server, and does.
    pub(super) fn notice(&mut self) {
        let ends = self.now + NOTICE;
        if let Some(server) = self.any_machine()
            && let Some(id) = self.provider.give_notice(&server, ends)
        {
            self.trace.note(self.now, format_args!("{server} will be interrupted"));
            self.at(ends, Happening::Interrupt { server, id });
        }
        self.again(self.rates.notice, Happening::Notice);
    }

    /// What was given notice of ends, whatever runs there.
    pub(super) fn interrupt(&mut self, server: &ServerId, id: &str) {
        if self.provider.objects.get(id).is_some_and(|it| it.ended.is_none()) {
            self.trace.note(self.now, format_args!("{server} is interrupted"));
            self.machines.remove(server);
            self.object_gone(id);
        }
    }

    /// The Manager asks for notices.
    pub(super) fn ask_notices(&mut self) {
        let because = || "others pay more".to_owned();
        let notice = |(server, ends): (&ServerId, u64)| Interruption {
            server: server.clone(),
            at: wall(ends),
            because: because(),
        };
        let notices: Vec<Interruption> = self.provider.notices().map(notice).collect();
        if !notices.is_empty() {
            self.input(Input::Noticed(notices));
        }
    }

    /// A server starts anew: its workers are gone, its disk is not.
    pub(super) fn reboot(&mut self) {
        if let Some(server) = self.any_machine()
            && let Some(machine) = self.machines.get_mut(&server).filter(|it| it.up)
        {
            machine.reboot();
            self.trace.note(self.now, format_args!("{server} reboots"));
            self.hello(server);
        }
        self.again(self.rates.reboot, Happening::Reboot);
    }

    /// Nothing moves on a server for a while.
    pub(super) fn pause(&mut self) {
        if let Some(server) = self.any_machine() {
            let until = self.now + self.chance.between(1_000, 600_000);
            if let Some(machine) = self.machines.get_mut(&server) {
                machine.paused = machine.paused.max(until);
                self.trace.note(self.now, format_args!("{server} stands still until {until}"));
            }
        }
        self.again(self.rates.pause, Happening::Pause);
    }

    /// The wall clock is set.
    pub(super) fn step_clock(&mut self) {
        let off = i64::try_from(self.chance.below(60_000)).unwrap_or_default();
        self.skew = off - 30_000;
        self.again(self.rates.clock, Happening::Clock);
    }

    fn any_machine(&mut self) -> Option<ServerId> {
        if self.healed {
            return None;
        }
        let servers: Vec<&ServerId> = self.machines.keys().collect();
        self.chance.pick(&servers).map(|it| (*it).clone())
    }
}
