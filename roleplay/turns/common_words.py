"""Words of many names that name nobody: "the" of "The Guard" does not call the guard."""

from __future__ import annotations

#: What joins words, and what is often said of things as well as in names: English first, then German, French, Spanish,
#: Italian, Portuguese and Dutch with the particles of names, then Russian and Ukrainian.
_WORDS = """
a about above after again all also always am an and another any anybody anyone are as at away back be because been
before behind being below best better between both but by came can come could did do does done down each else even
ever every everybody everyone few first for from get give go goes gone good got great had has have he her here hers
him his how i if in into is it its just last left less let like little long look made make many may me mine more most
much must my near never new next no nobody none nor not nothing now of off oh ok okay old on once one only or other
our ours out over own please quite rather really right said same say see shall she should since small so some somebody
someone something still such take tell than thank thanks that the their theirs them then there these they thing this
those though through till to together told too two under until up upon us very want was way we well went were what
when where which while who whom whose why will with within without would yes yet you young your yours bad big black
blue brave bright broken brown cold dark dead dear deep elder evil fair false fat fine free full gentle gold golden
gray green grey grim half happy hard high holy hot humble iron kind large late light lone lonely lost low mad mean
mighty nice odd orange pale pink poor pretty proud purple quick quiet red rich sad second secret short shy silent
silver slow soft strange strong sweet tall thin third tiny true ugly warm weak white wild wise yellow dr jr mr mrs ms
mx prof sr st

aber als am auf aus bei bin bist das dem den der des die du ein eine einem einen einer er es frau herr ich ihr im ist
ja kein mit nein nicht noch oder sich sie sind und vom von vor war was wer wie wir zu zum zur au aux avec ce ces cette
dans elle elles en est et eux il ils je la le les leur lui ma mais mes moi mon ne nous ou par pas pour qui quoi sa
sans ses sont sur ta tes toi ton tu un une vos votre vous al como con de del donde el ellos eres esa ese eso esta este
esto ha hay las lo los mi muy o para pero por que se ser si su sus te tiene una uno unos y ya yo alla che chi ci come
da dal dalla degli dei della delle di e gli io loro mio nel nella noi per sei sono sua suo ti tra vi voi ao aos as com
do dos ela ele eles eu foi isso mas meu minha na nas nem no nos os pela pelo seu tem um uma voce você aan dat deze dit
een geen heb heeft het hij ik maar met mijn naar niet nog of ons ook op ter uit van voor wat we wij ze zij zijn abu ap
bint ibn mc ten

а без более бы был была были было быть в вам вас ваш все всё вы где да для до его ее её если есть еще ещё же за и из
или им их к как кто ли мне мой моя мы на над нас наш не нет ни но о об он она они оно от по под при с со так там тебе
тебя то только ты у уже чем что это этот я старый старая новый новая большой большая маленький маленькая белый белая
черный чёрный черная чёрная красный красная великий великая та те ця це ви ми ні що як
"""
COMMON_WORDS = frozenset(_WORDS.split())
